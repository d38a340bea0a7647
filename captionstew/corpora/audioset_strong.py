"""AudioSet-strong: 10 s of YouTube videos with events and their times. Hershey et al., 2021.

Release: https://research.google.com/audioset/download_strong.html (CC BY 4.0),
audioset_train_strong.tsv and audioset_eval_strong.tsv into CORPUS_DIR. Audio: YouTube, named
Y<video>.wav, <video>_<start in ms>.wav or <video>_<start>.wav, 10 s from the start.

103,463 clips to train, 5 % of whose videos validate (seeded), 16,996 to test. Of the 456 classes
447 are in train, 416 in eval, 407 in both: those 407 can be learned and scored. Overlapping events
of one class are joined, and events without length (27 in eval) left out. `custom.events` is a list
of [onset, offset, class] in seconds from the clip's start; the class is a MID, because the names of
strong and weak labels differ.

    segment_id           start_time_seconds  end_time_seconds  label        tab-separated
    YxlGt805lTA_30000    2.627               7.237             /m/053hz1    begins at 30,000 ms

    python local/prepare_corpus.py audioset_strong --corpus-dir download/audioset_strong \\
        --output-dir data/audioset_strong
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.fetch import METADATA, YOUTUBE_STEPS, Steps
from captionstew.corpora.file_names import names_of_clip, youtube_names
from captionstew.corpora.keys import strong_segment, video_key, youtube_key
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
    read_jsonl,
)

HOME = "https://research.google.com/audioset/download_strong.html"
FETCH = (
    Steps(f"audioset_train_strong.tsv and audioset_eval_strong.tsv from {HOME}", METADATA),
    Steps(YOUTUBE_STEPS),
)


def files(part: str) -> list[str]:
    """The names of a list of events: as released, and as repackaged in JSON lines."""
    return [f"audioset_{part}_strong.tsv", f"{part}_events.jsonl"]


class StrongClip(NamedTuple):
    """A clip of AudioSet-strong: start in the video (whole seconds) and events (onset, offset in
    seconds, label).
    """

    video: str
    start: int
    events: list[tuple[float | None, float | None, str]]


def read_audioset_strong(path: Path) -> list[StrongClip]:
    """audioset_{train,eval}_strong.tsv, one row per event; or JSON lines with `id` and
    `events`/`events_list`.
    """
    clips: dict[str, list] = defaultdict(list)
    if ".jsonl" in path.suffixes:
        for record in read_jsonl(path):
            clips[record["id"]] += _events_of_record(record)
    else:
        columns = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
        for row in read_csv(path, columns, delimiter="\t"):
            clips[row["segment_id"]].append(
                (float(row["start_time_seconds"]), float(row["end_time_seconds"]), row["label"])
            )
    return [StrongClip(*strong_segment(segment), events) for segment, events in clips.items()]


def _events_of_record(record: dict) -> Iterator[tuple[float | None, float | None, str]]:
    for line in record.get("events", "").splitlines():  # "[2.29-3.51] Squeak"
        times, _, label = line.partition("] ")
        onset, offset = times.lstrip("[").split("-")
        yield float(onset), float(offset), label
    for label in record.get("events_list", ()):
        yield None, None, label


def read_strong_classes(path: Path) -> list[tuple[str, str]]:
    """(MID, name) pairs of a header-less class list; join on the MID, names differ from the weak
    labels'.
    """
    return [(row["mid"], row["name"]) for row in read_csv(path, ("mid", "name"), header=False)]


SIZES = {"eval": 16_996, "train": 103_463}
# the copy in JSON lines leaves out what it could not download; AudioSet eval has all of it
REPACKAGED_SIZES = {"eval": 16_678, "train": 101_791}
READ_AS = {"eval": ("test",), "train": ("train", "valid"), "valid": ("valid",)}


def evaluation_list(corpora: Path, split: str) -> EvaluationList:
    """The videos of a list of the release; `valid`: of its training list, those that probes are
    chosen on.
    """
    part = "train" if split == "valid" else split
    path = find_release_file(corpora / "audioset_strong", files(part), HOME)
    sizes = REPACKAGED_SIZES if ".jsonl" in path.suffixes else SIZES

    def keys(clip: StrongClip) -> list[str]:
        held_out = held_out_for_validation(youtube_key(clip.video, clip.start))
        return [video_key(clip.video)] if held_out or split != "valid" else []

    clips = ((clip.video, keys(clip)) for clip in read_audioset_strong(path))
    return EvaluationList([path], clips, sizes[part], HOME, READ_AS[split])


def segment_starts(corpora: Path) -> Iterator[tuple[str, int]]:
    """(video, start second) of every list at hand."""
    folder = corpora / "audioset_strong"
    names = ("audioset_*_strong.tsv*", "*_events*.jsonl*")
    for path in (path for name in names for path in sorted(folder.glob(name))):
        for clip in read_audioset_strong(path):
            yield clip.video, clip.start


DURATION = 10.0


def join_events(events: Iterable[tuple[float, float, str]]) -> list[list]:
    """[onset, offset, class] in order of time: of each class the union of its intervals, without
    empty ones.
    """
    by_class: dict[str, list[list]] = defaultdict(list)
    for onset, offset, label in sorted(events):
        if offset <= onset:
            continue
        joined = by_class[label]
        if joined and onset <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], offset)
        else:
            joined.append([onset, offset, label])
    return sorted(event for joined in by_class.values() for event in joined)


def read(args: argparse.Namespace, report: Report) -> tuple[list[str], Iterator[LabelledClip]]:
    parts = {}
    for part in ("train", "eval"):
        path = find_release_file(args.corpus_dir, files(part), HOME)
        parts[part] = read_audioset_strong(path)
        untimed = [clip.video for clip in parts[part] for event in clip.events if None in event]
        if untimed:
            raise ReleaseError(
                f"{path}: the events of {untimed[0]} have no times; detection needs"
                f" {files(part)[0]} from {HOME}"
            )
    classes = [{label for clip in clips for *_, label in clip.events} for clips in parts.values()]
    train, evaluation = classes
    if not train & evaluation:
        raise ReleaseError(
            f"{args.corpus_dir}: training and evaluation share no class; one list has MIDs and the"
            f" other names: take both from {HOME}"
        )
    print(
        f"{len(train)} classes to train on, {len(evaluation)} to test, {len(train & evaluation)} in"
        " both"
    )
    return sorted(train | evaluation), clips(args, report, parts)


def clips(
    args: argparse.Namespace, report: Report, parts: dict[str, list[StrongClip]]
) -> Iterator[LabelledClip]:
    audio = AudioFolder(args.audio_dir, report, youtube_names)
    for part, listed in parts.items():
        for clip in listed:
            timed = [
                (onset, offset, label)
                for onset, offset, label in clip.events
                if onset is not None and offset is not None
            ]
            for onset, offset, label in timed:
                if offset < onset:
                    raise ReleaseError(
                        f"{part}: an event {label} of {clip.video} ends at {offset} before {onset}"
                    )
                if offset == onset:
                    report.drop("event without length", f"{clip.video} {onset} {label}")
            events = join_events(timed)
            if not events:
                report.drop("clip without events", clip.video)
                continue
            key = youtube_key(clip.video, clip.start)
            split = (
                "test" if part == "eval" else "valid" if held_out_for_validation(key) else "train"
            )
            names = names_of_clip(clip.video, clip.start)
            path = audio.named(f"Y{clip.video}.wav", names)
            yield LabelledClip(key, path, split, {"events": events}, DURATION)


CORPUS = LabelledCorpus(name="audioset_strong", home=HOME, read=read, ships_audio=False)
