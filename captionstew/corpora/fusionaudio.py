"""FusionAudio-1.2M: captions of AudioSet from sound, speech, music and picture cues. Chen et al.,
2025.

Under CC BY-NC 4.0, for research.

Release: https://huggingface.co/datasets/SatsukiVie/FusionAudio; put its JSON files (all of them,
under any name) in CORPUS_DIR. They mix captions with about 6M questions and answers; only records
whose task is captioning are kept. A re-release as JSON lines (`id`, `duration`, `caption`) is read
as well. Audio: AudioSet, unbalanced train.

    [{"audio_id": "<folder of the authors>/---2_BBVHAA_30_40.wav", "instruction": "...",
      "input": "", "dataset": "...", "task": "caption", "output": "A man ..."}, ...]

    python local/prepare_corpus.py fusionaudio --corpus-dir download/fusionaudio \\
        --output-dir data/tables
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.captioned import Corpus
from captionstew.corpora.fetch import YOUTUBE_STEPS, Hub, Steps
from captionstew.corpora.file_names import names_of_clip, youtube_names
from captionstew.corpora.keys import youtube_key, youtube_segment
from captionstew.corpora.release import (
    ReleaseError,
    Report,
    read_json_list,
    read_jsonl,
)

HOME = "https://huggingface.co/datasets/SatsukiVie/FusionAudio"
FETCH = (Hub("SatsukiVie/FusionAudio", ("*.json", "*.jsonl")), Steps(YOUTUBE_STEPS))
LICENSE = "CC-BY-NC-4.0"


def records(
    corpus_dir: Path, audio_dir: Path, report: Report
) -> Iterator[tuple[str, str, float | None]]:
    """(clip id, caption, duration or None) of every caption record of every file, but for those
    that downloaders leave beside the audio.
    """
    found = (x.absolute() for x in sorted(corpus_dir.rglob("*.json*")))
    beside = (x for x in found if audio_dir not in x.parents)
    files = [x for x in beside if {".json", ".jsonl"} & set(x.suffixes)]
    if not files:
        raise ReleaseError(
            f"no JSON file in {corpus_dir}; get the caption files from {HOME} and put them there"
        )
    for file in files:
        if ".jsonl" in file.suffixes:
            for record in read_jsonl(file, ("id", "caption"), report):
                yield record["id"], record["caption"], record.get("duration")
            continue
        for record in read_json_list(file, columns=("audio_id", "output"), report=report):
            if "caption" in str(record.get("task", "")).lower():
                yield record["audio_id"], record["output"], None
            else:
                report.drop("not a caption (question and answer)", record.get("audio_id"))


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """One row per caption record; a clip may have several."""
    audio = AudioFolder(args.audio_dir, report, youtube_names)
    for clip_id, caption, duration in records(args.corpus_dir, args.audio_dir, report):
        with report.counting_bad_names(clip_id):
            video, start = youtube_segment(clip_id)
            yield from report.row(
                caption,
                "fusionaudio",
                audio_key=youtube_key(video, start),
                audio_path=audio.named(f"{video}.wav", names_of_clip(video, start)),
                duration=10.0 if duration is None else float(duration),
                split="train",
                license=LICENSE,
            )


CORPUS = Corpus(
    name="fusionaudio", home=HOME, splits=("train",), default_splits=("train",), rows=rows
)
