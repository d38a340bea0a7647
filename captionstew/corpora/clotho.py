"""Clotho v2.1: Freesound recordings of 15 to 30 s with five human captions each. Drossos et al.,
ICASSP 2020.

Release: https://zenodo.org/records/4783391, files clotho_captions_<split>.csv,
clotho_metadata_<split>.csv and clotho_audio_<split>.7z for the splits development, validation,
evaluation. Put the CSVs in CORPUS_DIR and unpack the archives in AUDIO_DIR. The metadata (Latin-1)
carries the Freesound id, Clotho's only link to other corpora: clips that it does not know stop the
program, or are `clotho:<file name>` with --allow-missing-ids. The caption files of the WavCaps
repository (train.csv, val.csv, test.csv) are read too.

    file_name,caption_1,caption_2,caption_3,caption_4,caption_5
    Santa Motor.wav,A machine whines and squeals while rhythmically punching or stamping.,...

    python local/prepare_corpus.py clotho --corpus-dir download/clotho --output-dir data/tables \\
        --splits development
"""

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.captioned import Corpus
from captionstew.corpora.fetch import Steps, Zenodo
from captionstew.corpora.keys import freesound_key
from captionstew.corpora.release import (
    EvaluationList,
    ReleaseError,
    Report,
    find_release_file,
    open_text,
    present,
    read_csv,
)
from captionstew.data.audio import AUDIO_ENDINGS

HOME = "https://zenodo.org/records/4783391"
FETCH = (
    Zenodo(4783391, ("clotho_captions_*.csv", "clotho_metadata_*.csv")),
    Zenodo(4783391, ("clotho_audio_*.7z",), "audio"),
    Steps("unpack the archives into audio/: 7z x -oaudio clotho_audio_<split>.7z"),
)
OTHER_NAMES = {"development": "train", "validation": "val", "evaluation": "test"}
SIZES = {"development": 3_839, "validation": 1_045, "evaluation": 1_045}
ALL_IDS, ALL_IDS_HOME = "blacklist_clotho.full.v2.csv", "github.com/Labbeti/aac-datasets"
ALL_IDS_SIZE = 7_942


def caption_file(folder: Path, split: str) -> Path:
    return find_release_file(
        folder, [f"clotho_captions_{split}.csv", f"{OTHER_NAMES[split]}.csv"], HOME
    )


def read_clotho_metadata(folder: Path, split: str) -> dict[str, dict[str, str]]:
    """File name -> row of clotho_metadata_<split>.csv; empty if not there."""
    path = present(folder, [f"clotho_metadata_{split}.csv"])
    return read_metadata_file(path) if path else {}


def read_metadata_file(path: Path) -> dict[str, dict[str, str]]:
    """File name -> row of a metadata table: Latin-1, "," or ";" between fields."""
    delimiter = ";" if _first_line(path).count(";") > _first_line(path).count(",") else ","
    rows = read_csv(path, ("file_name", "sound_id"), encoding="iso-8859-1", delimiter=delimiter)
    return {row["file_name"].strip(): row for row in rows}


def _first_line(path: Path) -> str:
    with open_text(path, "iso-8859-1") as stream:
        return stream.readline()


def all_metadata(corpora: Path) -> dict[str, dict[str, str]]:
    """File name -> row, of every metadata table that is there, ClothoAQA's included."""
    extra = present(corpora / "clothoaqa", ["clotho_aqa_metadata.csv"])
    rows = read_metadata_file(extra) if extra else {}
    for split in OTHER_NAMES:
        rows |= read_clotho_metadata(corpora / "clotho", split)
    return rows


def clotho_key(file_name: str, metadata: dict[str, str]) -> str:
    """`fs:<sound id>` where the metadata knows it (some rows say "Not found"), else `clotho:<file
    name>`.
    """
    sound_id = (metadata.get("sound_id") or "").strip()
    return freesound_key(sound_id) if sound_id.isdigit() else f"clotho:{file_name}"


def evaluation_list(corpora: Path, split: str) -> EvaluationList:
    """File names and Freesound ids of a split."""
    path = caption_file(corpora / "clotho", split)
    names = [row["file_name"].strip() for row in read_csv(path, ("file_name",))]
    metadata = read_clotho_metadata(corpora / "clotho", split)
    clips = chain(named_clips(names, metadata), unnamed_clips(corpora, names, metadata))
    return EvaluationList([path], clips, SIZES[split], HOME, (split,))


Clips = list[tuple[str | None, Sequence[str]]]


def named_clips(names: Iterable[str], metadata: dict[str, dict[str, str]]) -> Clips:
    """Each clip with its own key and that of its Freesound sound."""
    return [(name, [f"clotho:{name}", clotho_key(name, metadata.get(name, {}))]) for name in names]


def unnamed_clips(
    corpora: Path, names: Iterable[str], metadata: dict[str, dict[str, str]]
) -> Iterator[tuple[None, Sequence[str]]]:
    """Where the metadata does not know all `names`: the Freesound ids of the whole of Clotho, in
    place of those that cannot be known.

    Raises ReleaseError where that list is not there or short, as it is read: what came before it
    protects none the less.
    """
    unknown = sorted({name for name in names if name not in metadata})
    if not unknown:
        return
    problem = f"{len(unknown):,} clips have no Freesound id, e.g. {unknown[0]!r}"
    better = f"better: the files clotho_metadata_<split>.csv from {HOME}"
    folders = [corpora / "clotho", corpora / "wavcaps"]
    listed = next((x for x in folders if present(x, [ALL_IDS])), folders[0])
    try:
        path = find_release_file(listed, [ALL_IDS], f"{ALL_IDS_HOME} (data/wavcaps)")
    except ReleaseError as error:
        raise ReleaseError(f"{problem}: {error}; {better}") from error
    ids = [row["id"] for row in read_csv(path, ("id",))]
    if len(ids) < ALL_IDS_SIZE:
        raise ReleaseError(
            f"{problem}: {path} has {len(ids):,} ids, expected {ALL_IDS_SIZE:,}; {better}"
        )
    # "Not found" is Clotho's own word for a sound that left Freesound.
    yield from ((None, [freesound_key(sound)]) for sound in ids if sound != "Not found")


CAPTIONS = tuple(f"caption_{i}" for i in range(1, 6))
CAPTION_LICENSE = "Tampere University, non-commercial"


def require_ids(
    path: Path, metadata: dict[str, dict[str, str]], allowed: bool, report: Report
) -> None:
    """Raises ReleaseError, or with `allowed` reports, how many clips the metadata does not know."""
    rows = read_csv(path, ("file_name",), report=Report())  # bad rows are counted by who uses them
    names = [row["file_name"].strip() for row in rows]
    unknown = [name for name in names if name not in metadata]
    if not unknown:
        return
    problem = (
        f"{path}: {len(unknown):,} of {len(names):,} clips have no Freesound id, e.g."
        f" {unknown[0]!r}, so sounds shared with FSD50K, UrbanSound8K or WavCaps go unnoticed"
    )
    if not allowed:
        raise ReleaseError(
            f"{problem}; get clotho_metadata_<split>.csv from {HOME}, or pass --allow-missing-ids"
        )
    report.unprotected.append(problem)


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """Five rows per clip."""
    audio = AudioFolder(args.audio_dir, report)
    for split in args.splits:
        path = caption_file(args.corpus_dir, split)
        metadata = read_clotho_metadata(args.corpus_dir, split)
        require_ids(path, metadata, args.allow_missing_ids, report)
        excerpts: dict[str, str] = {}  # key -> the file that it stands for
        for row in read_csv(path, ("file_name", *CAPTIONS), report=report):
            name = row["file_name"].strip()
            if not name.lower().endswith(AUDIO_ENDINGS):
                report.damage("no name of an audio file", name)
                continue
            found = metadata.get(name, {})
            key = clotho_key(name, found)
            if (
                excerpts.setdefault(key, name) != name
            ):  # one key, but other seconds of the sound: not the same captions
                report.drop(
                    "another excerpt of the same Freesound sound",
                    f"{name}: {key}, as {excerpts[key]}",
                )
                continue
            # The retrieval audio of DCASE has colons replaced on disk: "Intersection Wet : Metro
            # Pass.wav".
            on_disk = re.sub(r"\s*:\s*", "_", name)
            for column in CAPTIONS:
                yield from report.row(
                    row[column],
                    "clotho",
                    audio_key=key,
                    audio_path=audio.path(f"{split}/{name}", on_disk.removesuffix(".wav")),
                    split=split,
                    license="; ".join(
                        filter(None, [CAPTION_LICENSE, found.get("license", "").strip()])
                    ),
                )


CORPUS = Corpus(
    name="clotho",
    home=HOME,
    splits=("development", "validation", "evaluation"),
    default_splits=("development", "validation", "evaluation"),
    rows=rows,
    flags={
        "--allow-missing-ids": {
            "action": "store_true",
            "help": "go on with clips that the metadata does not know; the report counts them",
        }
    },
)
