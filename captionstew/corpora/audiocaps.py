"""AudioCaps: AudioSet clips with human captions. Kim et al., NAACL 2019.

Release: https://github.com/cdjkim/audiocaps, folders `dataset/` (version 1) and `dataset2.0/`
(version 2), files train.csv, val.csv, test.csv. Audio: 10 s of YouTube video each, to be requested
through https://audiocaps.github.io. Put the CSVs of version 1 in CORPUS_DIR or its `dataset/`,
those of version 2 in its `dataset2.0/` or `v2/` (read with `--version 2`; copies go about in which
captions with commas have no quotes); the corrected training captions of
https://github.com/Labbeti/aac-datasets go there as train_fixed.csv and are read with `--splits
train_fixed`.

    audiocap_id,youtube_id,start_time,caption
    91139,r1nicOVtvkQ,130,A woman talks nearby as water pours

    python local/prepare_corpus.py audiocaps --corpus-dir download/audiocaps \\
        --output-dir data/tables --splits train
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.captioned import Corpus, Part
from captionstew.corpora.fetch import YOUTUBE_STEPS, File, Steps
from captionstew.corpora.file_names import names_of_clip, youtube_names
from captionstew.corpora.keys import start_second, video_key, youtube_id, youtube_key
from captionstew.corpora.release import (
    EvaluationList,
    Report,
    find_release_file,
    present,
    read_csv,
)

HOME = "https://github.com/cdjkim/audiocaps"
RAW = "https://raw.githubusercontent.com/cdjkim/audiocaps/master"
CHECKSUMS = {  # of the lists as they were in 2026
    "dataset/train.csv": "c0c5223db682b3bf724ce7e7ce58d5b36929f74572e8526a7211f92d2eef7c8e",
    "dataset/val.csv": "dab1c96641d5f3053ddb99dca3949450da9a75737bda53e11cc0aa8b102be0c3",
    "dataset/test.csv": "b91c4b7ded2f4f6e7db5b9c4983dc1e1dca3d556f505b61e3fd65cac7e1c638a",
    "dataset2.0/val.csv": "dfdd0f83c70fb818fbb86dcba42754abfb97f7774d811fff91a1c89d84d868c5",
    "dataset2.0/test.csv": "365c8a8a71c9070a8d5dba5dd44f3a781f906632a49cb82b38bebaaa8f3c5ccb",
}
FETCH = (
    *(File(f"{RAW}/{x}", x, checksum=f"sha256:{sha}") for x, sha in CHECKSUMS.items()),
    Steps(f"ask for the audio through https://audiocaps.github.io, or else {YOUTUBE_STEPS}"),
)
LICENSE = "MIT, academic use"
FOLDERS = {1: ("dataset/", ""), 2: ("dataset2.0/", "v2/")}  # where the files of a version lie
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
SPLITS = ("train", "val", "test", "train_fixed")
LIT_PARTS = {"train": Part("train"), "valid": Part("val"), "test": Part("test")}


def files(version: int, split: str) -> list[str]:
    """The names that a split of a version may have, below the release's folder."""
    return [f"{place}{split}.csv" for place in FOLDERS[version]]


SIZES = {"val": 495, "test": 975}  # clips; both versions have the same


def evaluation_list(corpora: Path, split: str) -> EvaluationList:
    """The videos of a split, in every version of which any file is there.

    Raises ReleaseError where such a version lacks the split's file, or where there is none.
    """
    folder = corpora / "audiocaps"
    versions = [
        version
        for version in FOLDERS
        if any(present(folder, files(version, part)) for part in SPLITS)
    ]
    paths = [find_release_file(folder, files(version, split), HOME) for version in versions or [1]]
    rows = (row["youtube_id"] for path in paths for row in read_csv(path, ("youtube_id",)))
    clips = ((video, [video_key(video)]) for video in rows)
    return EvaluationList(paths, clips, SIZES[split], HOME, (split,))


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """One row per caption; val and test have five per clip."""
    audio = AudioFolder(args.audio_dir, report, youtube_names)
    for split in args.splits:
        path = find_release_file(args.corpus_dir, files(args.version, split), HOME)
        for row in read_csv(path, COLUMNS, open_end=args.version == 2, report=report):
            with report.counting_bad_names(row):
                video, start = youtube_id(row["youtube_id"]), row["start_time"]
                names = names_of_clip(video, start_second(start))
                yield from report.row(
                    row["caption"],
                    "audiocaps",
                    audio_key=youtube_key(video, start),
                    audio_path=audio.named(f"{video}_{start}.flac", names, row["audiocap_id"]),
                    duration=10.0,
                    split="train" if split == "train_fixed" else split,
                    license=LICENSE,
                )


CORPUS = Corpus(
    name="audiocaps",
    home=HOME,
    splits=SPLITS,
    default_splits=("train", "val", "test"),
    rows=rows,
    flags={"--version": {"type": int, "choices": (1, 2), "default": 1, "help": "of the captions"}},
)
