"""FSD50K: sound events on Freesound, 200 classes, several per clip. Fonseca et al., 2022.

Release: https://zenodo.org/records/4060432 (CC BY 4.0; every clip has a licence of its own). Unpack
into CORPUS_DIR FSD50K.dev_audio/, FSD50K.eval_audio/ and FSD50K.ground_truth/ (dev.csv, eval.csv,
vocabulary.csv). Splits: the release's own, 36,796 clips to train, 4,170 to validate, 10,231 to
test. `custom.labels` is the list of classes; a class comes with its parents.

    fname,labels,mids,split                                                           dev.csv
    64760,"Electric_guitar,Guitar,Plucked_string_instrument,Music","/m/02sgy,...",train
    0,Accelerating_and_revving_and_vroom,/m/07q2z82       vocabulary.csv, no header

    python local/prepare_corpus.py fsd50k --corpus-dir download/fsd50k --output-dir data/fsd50k
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.fetch import METADATA, Steps, Zenodo
from captionstew.corpora.keys import freesound_key
from captionstew.corpora.labelled import LabelledClip, LabelledCorpus
from captionstew.corpora.release import (
    EvaluationList,
    ReleaseError,
    Report,
    find_release_file,
    read_csv,
    read_jsonl,
)

HOME = "https://zenodo.org/records/4060432"
FETCH = (
    Zenodo(4060432, ("FSD50K.ground_truth.zip",)),
    Steps("unzip FSD50K.ground_truth.zip", METADATA),
    Zenodo(4060432, ("FSD50K.dev_audio.*", "FSD50K.eval_audio.*"), "audio"),
    Steps("join the split archives with zip -s 0 FSD50K.dev_audio.zip --out whole.zip, unzip them"),
)


def list_file(folder: Path, split: str) -> Path:
    names = [f"FSD50K.ground_truth/{split}.csv", f"{split}.csv", f"fsd50k_{split}_labels.jsonl"]
    return find_release_file(folder, names, HOME)


def read_fsd50k(folder: Path, split: str) -> Iterator[tuple[str, list[str], str]]:
    """(Freesound id, labels, train | val | eval) of FSD50K's `dev` or `eval` list. Labels are as
    the release writes them.
    """
    path = list_file(folder, split)
    if ".jsonl" in path.suffixes:
        for record in read_jsonl(path):
            yield record["id"], record["audio_events"].split("; "), split
        return
    for row in read_csv(path, ("fname", "labels", "mids")):
        yield row["fname"], row["labels"].split(","), row.get("split") or split


def read_fsd50k_vocabulary(path: Path) -> list[tuple[int, str, str]]:
    """(index, label, MID): vocabulary.csv has no header, so row 0 is class 0."""
    rows = read_csv(path, ("index", "label", "mid"), header=False)
    return [(int(row["index"]), row["label"], row["mid"]) for row in rows]


SIZES = {"dev": 40_966, "eval": 10_231}


def evaluation_list(corpora: Path, split: str) -> EvaluationList:
    """The Freesound ids of a list."""
    folder = corpora / "fsd50k"
    clips = ((sound, [freesound_key(sound)]) for sound, _, _ in read_fsd50k(folder, split))
    splits = ("test",) if split == "eval" else ("train", "valid")
    return EvaluationList([list_file(folder, split)], clips, SIZES[split], HOME, splits)


SPLITS = {"train": "train", "val": "valid", "eval": "test"}


def read(args: argparse.Namespace, report: Report) -> tuple[list[str], Iterator[LabelledClip]]:
    names = ["FSD50K.ground_truth/vocabulary.csv", "vocabulary.csv"]
    vocabulary = read_fsd50k_vocabulary(find_release_file(args.corpus_dir, names, HOME))
    return [label for _, label, _ in vocabulary], clips(args, report)


def clips(args: argparse.Namespace, report: Report) -> Iterator[LabelledClip]:
    audio = AudioFolder(args.audio_dir, report)
    for part in ("dev", "eval") if "test" in args.splits else ("dev",):
        for sound, labels, split in read_fsd50k(args.corpus_dir, part):
            if split not in SPLITS:
                raise ReleaseError(
                    f"{args.corpus_dir}: clip {sound} of {part}.csv is of split {split!r}, not"
                    " train or val"
                )
            path = audio.path(f"FSD50K.{part}_audio/{sound}.wav")
            yield LabelledClip(freesound_key(sound), path, SPLITS[split], {"labels": labels})


CORPUS = LabelledCorpus(name="fsd50k", home=HOME, read=read)
