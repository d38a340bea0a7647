"""NSynth: single notes of 4 s; which of eleven families is the instrument of? Engel et al., 2017.

Release: https://magenta.tensorflow.org/datasets/nsynth (CC BY 4.0),
nsynth-{train,valid,test}.jsonwav.tar.gz unpacked into CORPUS_DIR: nsynth-<split>/examples.json and
nsynth-<split>/audio/<note>.wav. Splits: the release's own, 289,205, 12,678 and 4,096 notes;
instruments of train are not in the others, and valid and test have no synth_lead: the classes are
eleven all the same. `custom.label` is the family, with which the note's name begins.

    "guitar_acoustic_010-066-100": {"instrument_family": 3, "instrument_family_str": "guitar", ...}

    python local/prepare_corpus.py nsynth --corpus-dir download/nsynth --output-dir data/nsynth
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.labelled import LabelledClip, LabelledCorpus
from captionstew.corpora.release import (
    ReleaseError,
    Report,
    find_release_file,
    open_text,
    read_jsonl,
)

HOME = "https://magenta.tensorflow.org/datasets/nsynth"


# The classes in the order of the release's `instrument_family`. The valid and test sets have no
# synth_lead: a head built from the labels of a test set would lack an output.
NSYNTH_FAMILIES = (
    "bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string",
    "synth_lead", "vocal",
)  # fmt: skip


def read_nsynth(folder: Path, split: str) -> Iterator[tuple[str, str]]:
    """(note, instrument family) of `train`, `valid` or `test`; the audio is `<note>.wav`.

    From the release's examples.json, an object keyed by note, or from JSON lines with the note as
    `id`. The family is the beginning of the note's name,
    `<family>_<source>_<instrument>-<pitch>-<velocity>`; raises ReleaseError for a family that is
    none of NSYNTH_FAMILIES.
    """
    path = find_release_file(
        folder, [f"nsynth-{split}/examples.json", f"nsynth_{split}.jsonl"], HOME
    )
    for note in _nsynth_notes(path):
        family = next((family for family in NSYNTH_FAMILIES if note.startswith(f"{family}_")), None)
        if family is None:
            raise ReleaseError(
                f"{path}: {note!r} begins with none of the families {', '.join(NSYNTH_FAMILIES)}"
            )
        yield note, family


def _nsynth_notes(path: Path) -> Iterator[str]:
    if ".jsonl" in path.suffixes:
        yield from (record["id"] for record in read_jsonl(path))
        return
    with open_text(path) as stream:
        try:
            yield from json.load(stream)
        except ValueError as error:
            raise ReleaseError(f"{path}: cut off or not JSON ({error})") from error


def read(args: argparse.Namespace, report: Report) -> tuple[list[str], Iterator[LabelledClip]]:
    return list(NSYNTH_FAMILIES), clips(args, report)


def clips(args: argparse.Namespace, report: Report) -> Iterator[LabelledClip]:
    audio = AudioFolder(args.audio_dir, report)
    for split in args.splits:
        for note, family in read_nsynth(args.corpus_dir, split):
            path = audio.path(f"nsynth-{split}/audio/{note}.wav")
            yield LabelledClip(f"nsynth:{note}", path, split, {"label": family})


CORPUS = LabelledCorpus(name="nsynth", home=HOME, read=read)
