"""AudioSet: 10 s of YouTube videos with 527 classes, several per clip. Gemmeke et al., 2017.

Release: https://research.google.com/audioset/download.html (CC BY 4.0),
balanced_train_segments.csv, unbalanced_train_segments.csv, eval_segments.csv and
class_labels_indices.csv into CORPUS_DIR. Audio: YouTube, named Y<video>.wav, <video>.wav,
<video>_<start>.wav, <video>_<start>_<end>.wav or <video>_<start in ms>.wav, cut to the segment.

22,160 balanced and 2,041,789 unbalanced clips to train, 0.5 % of whose videos validate (seeded),
20,371 to test. Without the unbalanced list the balanced clips alone are for training.
`custom.labels` are the classes by display name; the order of the classes is that of
class_labels_indices.csv, which is the order of icefall's tagger.

    \\
    --PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"   no header, a blank after each comma
    0,/m/09x0r,"Speech"         class_labels_indices.csv: index,mid,display_name

    python local/prepare_corpus.py audioset --corpus-dir download/audioset \\
        --output-dir data/audioset --num-jobs 16
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.fetch import YOUTUBE_STEPS, File, Steps
from captionstew.corpora.file_names import names_of_clip, youtube_names
from captionstew.corpora.keys import video_key, youtube_id, youtube_key
from captionstew.corpora.labelled import LabelledClip, LabelledCorpus, held_out_for_validation
from captionstew.corpora.release import (
    EvaluationList,
    ReleaseError,
    Report,
    find_release_file,
    open_text,
    present,
    read_csv,
)
from captionstew.data.manifests.labels import read_class_list

HOME = "https://research.google.com/audioset/download.html"
CSVS = "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv"
CHECKSUMS = {
    "eval_segments.csv": None,
    "balanced_train_segments.csv": (
        "sha256:3b83e5ff9ed72cfda37d4e36ce08250e107c1ea70f109f6ab6668ac200db5e94"
    ),
    "unbalanced_train_segments.csv": None,
    "class_labels_indices.csv": None,
}
FETCH = (
    *(File(f"{CSVS}/{name}", name, checksum=sha) for name, sha in CHECKSUMS.items()),
    Steps(YOUTUBE_STEPS),
)


AUDIO_SPLITS = {"eval": ("test",)}  # of a segment list


def files(part: str) -> list[str]:
    """The names of a segment list: as released, and as repackaged with a header row."""
    return [f"{part}_segments.csv", f"{part}_segments.repacked.csv"]


class Segment(NamedTuple):
    """A stretch of a YouTube video (seconds) with its labels."""

    video: str
    start: float
    end: float
    labels: list[str]


def read_audioset_segments(path: Path) -> Iterator[Segment]:
    """AudioSet's segment CSVs: three "#" lines and no header, or a header row in repackaged
    copies.
    """
    with open_text(path) as stream:
        lines = (line for line in stream if not line.startswith("#"))
        for number, row in enumerate(csv.reader(lines, skipinitialspace=True, strict=True)):
            if number == 0 and row and row[0].strip().upper() == "YTID":
                continue
            if len(row) != 4:
                raise ReleaseError(
                    f"{path}: expected YTID, start, end, labels but row {number + 1} is {row}"
                )
            yield Segment(youtube_id(row[0]), float(row[1]), float(row[2]), row[3].split(","))


SIZES = {"eval": 20_371, "balanced_train": 22_160}


def evaluation_list(corpora: Path, split: str) -> EvaluationList:
    """The videos of a segment list."""
    path = find_release_file(corpora / "audioset", files(split), HOME)
    videos = (segment.video for segment in read_audioset_segments(path))
    clips = ((video, [video_key(video)]) for video in videos)
    return EvaluationList([path], clips, SIZES.get(split, 1), HOME, AUDIO_SPLITS.get(split, ()))


def segment_starts(corpora: Path) -> Iterator[tuple[str, int]]:
    """(video, start second) of every segment list at hand."""
    for path in sorted((corpora / "audioset").glob("*_segments*.csv*")):
        for segment in read_audioset_segments(path):
            yield segment.video, int(segment.start)


VALID_SHARE = 0.005  # of the training videos: 10,000 clips
CLASSES = "class_labels_indices.csv"


def read(args: argparse.Namespace, report: Report) -> tuple[list[str], Iterator[LabelledClip]]:
    path = find_release_file(args.corpus_dir, [CLASSES], HOME)
    classes = read_class_list(path)
    mids = {
        row["mid"]: row["display_name"] for row in read_csv(path, ("index", "mid", "display_name"))
    }
    lists = {}
    for part in ("eval", "balanced_train", "unbalanced_train"):
        if part == "unbalanced_train" and present(args.corpus_dir, files(part)) is None:
            print(
                f"{args.corpus_dir / files(part)[0]} is not there: the balanced clips alone are for"
                " training"
            )
            continue
        lists[part] = find_release_file(args.corpus_dir, files(part), HOME)
    return classes, clips(args, report, lists, mids)


def clips(
    args: argparse.Namespace, report: Report, lists: dict[str, Path], mids: dict[str, str]
) -> Iterator[LabelledClip]:
    """The clips of eval, then those of training whose video neither eval nor an earlier list
    has.
    """
    audio = AudioFolder(args.audio_dir, report, youtube_names)
    seen: set[str] = set()
    for part, path in lists.items():
        for segment in read_audioset_segments(path):
            if segment.video in seen:
                report.drop(f"clip of {part} whose video is in an earlier list", segment.video)
                continue
            seen.add(segment.video)
            yield clip(audio, segment, part, names_of(segment, mids, path))


def clip(audio: AudioFolder, segment: Segment, part: str, labels: list[str]) -> LabelledClip:
    key = youtube_key(segment.video, segment.start)
    split = (
        "test"
        if part == "eval"
        else "valid"
        if held_out_for_validation(key, VALID_SHARE)
        else "train"
    )
    names = names_of_clip(segment.video, int(segment.start))
    path = audio.named(f"Y{segment.video}.wav", names)
    return LabelledClip(key, path, split, {"labels": labels}, segment.end - segment.start)


def names_of(segment: Segment, mids: dict[str, str], path: Path) -> list[str]:
    try:
        return [mids[mid] for mid in segment.labels]
    except KeyError as error:
        raise ReleaseError(
            f"{path}: {segment.video} has the label {error}, which {CLASSES} does not list"
        ) from None


CORPUS = LabelledCorpus(name="audioset", home=HOME, read=read, ships_audio=False)
