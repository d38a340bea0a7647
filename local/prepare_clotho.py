"""Clotho v2.1: Freesound recordings of 15 to 30 s with five human captions each. Drossos et al., ICASSP 2020.

Release: https://zenodo.org/records/4783391, files clotho_captions_<split>.csv, clotho_metadata_<split>.csv
and clotho_audio_<split>.7z for the splits development, validation, evaluation. Put the CSVs in CORPUS_DIR and
unpack the archives in AUDIO_DIR. The metadata (Latin-1) carries the Freesound id, Clotho's only link to other
corpora; without it a clip is known as `clotho:<file name>`. The caption files of the WavCaps repository
(train.csv, val.csv, test.csv) are read too.

    file_name,caption_1,caption_2,caption_3,caption_4,caption_5
    Santa Motor.wav,A machine whines and squeals while rhythmically punching or stamping.,...

    python local/prepare_clotho.py --corpus-dir download/clotho --output-dir data/tables --splits development
"""

import argparse
import re
from collections.abc import Iterator

from captionstew.data.corpus_cli import AudioFolder, Corpus, Report, find_release_file, read_csv, run
from captionstew.data.evaluation_lists import (
    CLOTHO_HOME,
    CLOTHO_OTHER_NAMES,
    clotho_key,
    read_clotho_metadata,
)

CAPTIONS = tuple(f"caption_{i}" for i in range(1, 6))
CAPTION_LICENSE = "Tampere University, non-commercial"


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """Five rows per clip."""
    audio = AudioFolder(args.audio_dir)
    for split in args.splits:
        names = [f"clotho_captions_{split}.csv", f"{CLOTHO_OTHER_NAMES[split]}.csv"]
        path = find_release_file(args.corpus_dir, names, CLOTHO_HOME)
        metadata = read_clotho_metadata(args.corpus_dir, split)
        excerpts: dict[str, str] = {}  # key -> the file that it stands for
        for row in read_csv(path, ("file_name", *CAPTIONS)):
            name = row["file_name"].strip()
            found = metadata.get(name, {})
            key = clotho_key(name, found)
            if excerpts.setdefault(key, name) != name:  # one key, but other seconds of the sound: not the same captions
                report.drop("another excerpt of the same Freesound sound", f"{name}: {key}, as {excerpts[key]}")
                continue
            # The retrieval audio of DCASE has colons replaced on disk: "Intersection Wet : Metro Pass.wav".
            on_disk = re.sub(r"\s*:\s*", "_", name)
            for column in CAPTIONS:
                yield from report.row(
                    row[column],
                    "clotho",
                    audio_key=key,
                    audio_path=audio.path(f"{split}/{name}", on_disk.removesuffix(".wav")),
                    split=split,
                    license="; ".join(filter(None, [CAPTION_LICENSE, found.get("license", "").strip()])),
                )


CORPUS = Corpus(
    name="clotho",
    home=CLOTHO_HOME,
    splits=("development", "validation", "evaluation"),
    default_splits=("development", "validation", "evaluation"),
    rows=rows,
)

if __name__ == "__main__":
    run(CORPUS, __doc__)
