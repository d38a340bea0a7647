"""Clotho v2.1: Freesound recordings of 15 to 30 s with five human captions each. Drossos et al.,
ICASSP 2020.

Release: https://zenodo.org/records/4783391, files clotho_captions_<split>.csv,
clotho_metadata_<split>.csv and clotho_audio_<split>.7z for the splits development, validation,
evaluation. Put the CSVs in CORPUS_DIR and unpack the archives in AUDIO_DIR. The metadata (Latin-1)
carries the Freesound id, Clotho's only link to other corpora; without it a clip is known as
`clotho:<file name>`. The caption files of the WavCaps repository (train.csv, val.csv, test.csv) are
read too.

    file_name,caption_1,caption_2,caption_3,caption_4,caption_5
    Santa Motor.wav,A machine whines and squeals while rhythmically punching or stamping.,...

    python local/prepare_corpus.py clotho --corpus-dir download/clotho --output-dir data/tables \\
        --splits development
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.captioned import Corpus
from captionstew.corpora.keys import freesound_key
from captionstew.corpora.release import (
    AudioFolder,
    ReleaseError,
    Report,
    find_release_file,
    open_text,
    read_csv,
)

HOME = "https://zenodo.org/records/4783391"


CLOTHO_OTHER_NAMES = {"development": "train", "validation": "val", "evaluation": "test"}


CLOTHO_IDS = "blacklist_clotho.full.v2.csv"


def read_clotho_metadata(folder: Path, split: str) -> dict[str, dict[str, str]]:
    """File name -> row of clotho_metadata_<split>.csv (Latin-1, "," or ";" between fields); empty
    if not there.
    """
    try:
        path = find_release_file(folder, [f"clotho_metadata_{split}.csv"], HOME)
    except ReleaseError:
        return {}
    delimiter = ";" if _first_line(path).count(";") > _first_line(path).count(",") else ","
    rows = read_csv(path, ("file_name", "sound_id"), encoding="iso-8859-1", delimiter=delimiter)
    return {row["file_name"].strip(): row for row in rows}


def _first_line(path: Path) -> str:
    with open_text(path, "iso-8859-1") as stream:
        return stream.readline()


def clotho_key(file_name: str, metadata: dict[str, str]) -> str:
    """`fs:<sound id>` where the metadata knows it (some rows say "Not found"), else `clotho:<file
    name>`.
    """
    sound_id = (metadata.get("sound_id") or "").strip()
    return freesound_key(sound_id) if sound_id.isdigit() else f"clotho:{file_name}"


def evaluation_keys(corpora: Path, split: str) -> Iterator[str]:
    """File names and Freesound ids of a split."""
    folder = corpora / "clotho"
    names = [f"clotho_captions_{split}.csv", f"{CLOTHO_OTHER_NAMES[split]}.csv"]
    metadata = read_clotho_metadata(folder, split)
    for row in read_csv(find_release_file(folder, names, HOME), ("file_name",)):
        name = row["file_name"].strip()
        yield f"clotho:{name}"
        yield clotho_key(name, metadata.get(name, {}))
    if not metadata:
        # Without the metadata the Freesound ids of one split are unknown; this list has those of
        # all splits.
        folders = [corpora / "clotho", corpora / "wavcaps"]
        listed = next((x for x in folders if any(x.glob(CLOTHO_IDS + "*"))), corpora / "clotho")
        home = "github.com/Labbeti/aac-datasets (data/wavcaps)"
        try:
            path = find_release_file(listed, [CLOTHO_IDS], home)
        except ReleaseError as error:
            raise ReleaseError(
                f"{error}; better: clotho_metadata_{split}.csv from {HOME}"
            ) from error
        for row in read_csv(path, ("id",)):
            if row["id"] != "Not found":  # Clotho's own word for a sound that left Freesound
                yield freesound_key(row["id"])


def _clotho_ids(corpora: Path) -> dict[str, dict[str, str]]:
    return {
        name: row
        for split in CLOTHO_OTHER_NAMES
        for name, row in read_clotho_metadata(corpora / "clotho", split).items()
    }


CAPTIONS = tuple(f"caption_{i}" for i in range(1, 6))
CAPTION_LICENSE = "Tampere University, non-commercial"


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """Five rows per clip."""
    audio = AudioFolder(args.audio_dir)
    for split in args.splits:
        names = [f"clotho_captions_{split}.csv", f"{CLOTHO_OTHER_NAMES[split]}.csv"]
        path = find_release_file(args.corpus_dir, names, HOME)
        metadata = read_clotho_metadata(args.corpus_dir, split)
        excerpts: dict[str, str] = {}  # key -> the file that it stands for
        for row in read_csv(path, ("file_name", *CAPTIONS)):
            name = row["file_name"].strip()
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
)
