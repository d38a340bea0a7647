"""AudioSet-strong: 10 s of YouTube videos with events and their times. Hershey et al., 2021.

Release: https://research.google.com/audioset/download_strong.html (CC BY 4.0), audioset_train_strong.tsv and
audioset_eval_strong.tsv into CORPUS_DIR. Audio: YouTube, named Y<video>.wav, <video>_<start in ms>.wav or
<video>_<start>.wav, 10 s from the start.

103,463 clips to train, 5 % of whose videos validate (seeded), 16,996 to test. Of the 456 classes 447 are in train, 416
in eval, 407 in both: those 407 can be learned and scored. Overlapping events of one class are joined, and events
without length (27 in eval) left out. `custom.events` is a list of [onset, offset, class] in seconds from the clip's
start; the class is a MID, because the names of strong and weak labels differ.

    segment_id           start_time_seconds  end_time_seconds  label          tab-separated
    YxlGt805lTA_30000    2.627               7.237             /m/053hz1      the clip begins at 30 s: milliseconds

    python local/prepare_audioset_strong.py --corpus-dir download/audioset_strong --output-dir data/audioset_strong
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator

from captionstew.data.corpus_cli import AudioFolder, ReleaseError, Report, find_release_file
from captionstew.data.identity import youtube_key
from captionstew.data.label_lists import STRONG_HOME, StrongClip, read_audioset_strong
from captionstew.data.labelled import LabelledClip, LabelledCorpus, held_out_for_validation, run_labelled
from captionstew.data.programs import run_main

DURATION = 10.0


def join_events(events: Iterable[tuple[float, float, str]]) -> list[list]:
    """[onset, offset, class] in order of time: of each class the union of its intervals, without empty ones."""
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
        path = find_release_file(args.corpus_dir, [f"audioset_{part}_strong.tsv"], STRONG_HOME)
        parts[part] = read_audioset_strong(path)
    classes = [{label for clip in clips for *_, label in clip.events} for clips in parts.values()]
    train, evaluation = classes
    print(f"{len(train)} classes to train on, {len(evaluation)} to test, {len(train & evaluation)} in both")
    return sorted(train | evaluation), clips(args, report, parts)


def clips(args: argparse.Namespace, report: Report, parts: dict[str, list[StrongClip]]) -> Iterator[LabelledClip]:
    audio = AudioFolder(args.audio_dir)
    for part, listed in parts.items():
        for clip in listed:
            for onset, offset, label in clip.events:
                if offset < onset:
                    raise ReleaseError(f"{part}: an event {label} of {clip.video} ends at {offset} before {onset}")
                if offset == onset:
                    report.drop("event without length", f"{clip.video} {onset} {label}")
            events = join_events(clip.events)
            if not events:
                report.drop("clip without events", clip.video)
                continue
            key = youtube_key(clip.video, clip.start)
            split = "test" if part == "eval" else "valid" if held_out_for_validation(key) else "train"
            names = (f"{clip.video}_{clip.start * 1000}", f"{clip.video}_{clip.start}", clip.video)
            path = audio.path(f"Y{clip.video}.wav", *names)
            yield LabelledClip(key, path, split, {"events": events}, DURATION)


CORPUS = LabelledCorpus(name="audioset_strong", home=STRONG_HOME, read=read, ships_audio=False)

if __name__ == "__main__":
    run_main(lambda: run_labelled(CORPUS, __doc__))
