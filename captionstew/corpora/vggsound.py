"""VGGSound: 10 s clips of YouTube videos, one of 309 classes each. Chen et al., 2020.

Release: https://github.com/hche11/VGGSound (CC BY 4.0), files vggsound.csv, test.csv and stat.csv
of data/ into CORPUS_DIR. Audio: YouTube, named <video>_<start, six digits>.wav, 10 s from the
start.

The classes are those of stat.csv: a 310th label of vggsound.csv, `extending ladders` (182 training
clips), is left out. The test set is test.csv (15,446 clips); vggsound.csv lists 42 others as test,
which are left out. Training clips of the videos that test.csv uses too are left out. 5 % of the
training videos validate (seeded). `custom.label` is the class.

    ---g-f_I2yQ,1,people marching,test                                 vggsound.csv, no header
    glLQrEijrKg_000300.mp4,playing hammond organ                       test.csv, no header
    "bird chirping, tweeting",1050,animals                             stat.csv, no header

    python local/prepare_corpus.py vggsound --corpus-dir download/vggsound \\
        --output-dir data/vggsound
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.fetch import YOUTUBE_STEPS, File, Steps
from captionstew.corpora.file_names import names_of_clip, youtube_names
from captionstew.corpora.keys import video_key, youtube_id, youtube_key, youtube_segment
from captionstew.corpora.labelled import (
    LabelledClip,
    LabelledCorpus,
    held_out_for_validation,
)
from captionstew.corpora.release import (
    EvaluationList,
    ReleaseError,
    Report,
    find_release_file,
    read_csv,
)

HOME = "https://github.com/hche11/VGGSound"
RAW = "https://raw.githubusercontent.com/hche11/VGGSound/master/data"
CHECKSUMS = {
    "vggsound.csv": None,
    "test.csv": "sha256:0b2215dc3786fbb223aa06a2162491099d89cf080ac31b16bb3a72368fbaa24d",
    "stat.csv": "sha256:981445307f3b9ebc2b0e65641daaac1359496b7a8f17208348e7fc8e2696b6d5",
}
FETCH = (
    *(File(f"{RAW}/{name}", name, checksum=sha) for name, sha in CHECKSUMS.items()),
    Steps(YOUTUBE_STEPS),
)
LIST_FILES = ["vggsound.csv", "data/vggsound.csv"]
TEST_FILES = ["test.csv", "data/test.csv"]


# vggsound.csv has 182 training clips of a 310th label that neither stat.csv nor the test set knows.
VGGSOUND_EXTRA_LABEL = "extending ladders"


def read_vggsound(folder: Path) -> Iterator[tuple[str, int, str, str]]:
    """(video, start second, label, split) of vggsound.csv, which has no header; labels may hold
    commas.
    """
    path = find_release_file(folder, LIST_FILES, HOME)
    for row in read_csv(path, ("video", "start", "label", "split"), header=False):
        yield youtube_id(row["video"]), int(row["start"]), row["label"], row["split"]


def read_vggsound_test(folder: Path) -> Iterator[tuple[str, int, str]]:
    """(video, start second, label) of the official test.csv (15,446 clips), which has no header."""
    path = find_release_file(folder, TEST_FILES, HOME)
    for row in read_csv(path, ("name", "label"), header=False):
        video, start = youtube_segment(row["name"])
        if start is None:
            raise ReleaseError(f"{path}: {row['name']!r} has no start second")
        yield video, start, row["label"]


def read_vggsound_classes(folder: Path) -> list[str]:
    """The 309 class names in the order of stat.csv; `extending ladders` is not among them."""
    path = find_release_file(folder, ["stat.csv", "data/stat.csv"], HOME)
    return [row["label"] for row in read_csv(path, ("label", "count", "category"), header=False)]


TEST_CLIPS = 15_446
TRAINING_CLIPS = 180_000  # at least: copies differ by what was to be had


def evaluation_list(corpora: Path, split: str) -> EvaluationList:
    """The videos of the test list; `valid`: of the others, those that probes are chosen on."""
    folder = corpora / "vggsound"
    if split == "valid":
        path = find_release_file(folder, LIST_FILES, HOME)
        trained = (row for row in read_vggsound(folder) if row[3] != "test")
        clips = (
            (
                f"{video}_{start}",
                [video_key(video)] if held_out_for_validation(youtube_key(video, start)) else [],
            )
            for video, start, _, _ in trained
        )
        return EvaluationList([path], clips, TRAINING_CLIPS, HOME, ("valid",))
    path = find_release_file(folder, TEST_FILES, HOME)
    listed = read_vggsound_test(folder)
    clips = ((f"{video}_{start}", [video_key(video)]) for video, start, _ in listed)
    return EvaluationList([path], clips, TEST_CLIPS, HOME, ("test",))


DURATION = 10.0


def read(args: argparse.Namespace, report: Report) -> tuple[list[str], Iterator[LabelledClip]]:
    return read_vggsound_classes(args.corpus_dir), clips(args, report)


def clips(args: argparse.Namespace, report: Report) -> Iterator[LabelledClip]:
    audio = AudioFolder(args.audio_dir, report, youtube_names)

    def clip(video: str, start: int, label: str, split: str) -> LabelledClip:
        path = audio.named(f"{video}_{start:06d}.wav", names_of_clip(video, start))
        return LabelledClip(youtube_key(video, start), path, split, {"label": label}, DURATION)

    test = {(video, start): label for video, start, label in read_vggsound_test(args.corpus_dir)}
    test_videos = {video for video, _ in test}
    for video, start, label, part in read_vggsound(args.corpus_dir):
        if part == "test":
            if (video, start) not in test:
                report.drop("of the test part, but not in test.csv", f"{video} {start}")
        elif label == VGGSOUND_EXTRA_LABEL:
            report.drop(
                f"label {VGGSOUND_EXTRA_LABEL}, which is not one of the classes", f"{video} {start}"
            )
        elif video in test_videos:
            report.drop("training clip of a test video", f"{video} {start}")
        else:
            held_out = held_out_for_validation(youtube_key(video, start))
            yield clip(video, start, label, "valid" if held_out else "train")
    for (video, start), label in test.items():
        yield clip(video, start, label, "test")


CORPUS = LabelledCorpus(name="vggsound", home=HOME, read=read, ships_audio=False)
