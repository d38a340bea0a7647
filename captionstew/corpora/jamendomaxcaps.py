"""JamendoMaxCaps: captions by a language model for 362k instrumental tracks. Roy et al., 2025. CC
BY-SA 3.0.

Release: https://huggingface.co/datasets/amaai-lab/JamendoMaxCaps, file final_caption30sec.jsonl
into CORPUS_DIR (a re-release as JSON lines with ids like `1748883_90` and `132648_fullsong` is read
too), optionally the dated metadata <YYYY-MM-DD>.jsonl beside it. Audio: the tracks of
data/train-*.parquet written out as <track id>.mp3 into AUDIO_DIR.

    {"id": "1748883", "start_time": 90.0, "end_time": 120.0, "caption": "An ambient piece ..."}

Each 30 s segment of a track is a clip of its own: [start, end] is cut from the track. Captions of
whole songs are kept in the table and fall to the duration rule.

    python local/prepare_corpus.py jamendomaxcaps --corpus-dir download/jamendomaxcaps \\
        --output-dir data/tables
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.captioned import Corpus
from captionstew.corpora.fetch import Hub, Steps
from captionstew.corpora.file_names import jamendo_names
from captionstew.corpora.keys import IdentityError, start_second
from captionstew.corpora.release import ReleaseError, Report, read_jsonl

HOME = "https://huggingface.co/datasets/amaai-lab/JamendoMaxCaps"
FETCH = (
    Hub("amaai-lab/JamendoMaxCaps", ("*.jsonl",)),
    Hub("amaai-lab/JamendoMaxCaps", ("data/*.parquet",), "audio", folder="audio"),
    Steps("write the tracks of audio/data/*.parquet out as audio/<track>.mp3"),
)
LICENSE = "CC-BY-SA-3.0"
SEGMENT_SECONDS = 30.0
CLIP_ID = re.compile(r"(\d+)(?:_(\d+|fullsong))?")
SNAPSHOT = re.compile(r"\d{4}-\d{2}-\d{2}\.jsonl")


def clip(record: dict) -> tuple[str, str, float, float | None]:
    """(track, start or "full", offset, duration in seconds) of a caption record."""
    match = CLIP_ID.fullmatch(str(record["id"]))
    if match is None:
        raise IdentityError(
            f"id {record['id']!r} is neither <track> nor <track>_<start> nor <track>_fullsong"
        )
    if match[2] == "fullsong" or record.get("source") == "full_song":
        return match[1], "full", 0.0, record.get("duration")
    offset = float(match[2] or record.get("start_time") or 0.0)
    end = record.get("end_time")
    duration = float(end) - offset if end is not None else record.get("duration") or SEGMENT_SECONDS
    return match[1], str(start_second(offset)), offset, duration


def read_genres(files: list[Path]) -> dict[str, list[str]]:
    """Track -> genres. A track comes back in several dated metadata files: the newest one
    counts.
    """
    genres = {}
    for file in sorted(files):
        for record in read_jsonl(file):
            tags = ((record.get("musicinfo") or {}).get("tags") or {}).get("genres") or []
            genres[str(record["id"])] = [str(tag) for tag in tags]
    return genres


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """One row per caption of a segment or a song."""
    files = sorted(x for x in args.corpus_dir.iterdir() if ".jsonl" in x.suffixes)
    snapshots = [x for x in files if SNAPSHOT.match(x.name)]
    captions = [x for x in files if x not in snapshots]
    if not captions:
        raise ReleaseError(
            f"final_caption30sec.jsonl is missing; get it from {HOME} and put it in"
            f" {args.corpus_dir}"
        )
    genres = read_genres(snapshots)
    audio = AudioFolder(args.audio_dir, report, jamendo_names)
    for file in captions:
        for record in read_jsonl(file, ("id", "caption"), report):
            with report.counting_bad_names(record.get("id")):
                track, start, offset, duration = clip(record)
                if not audio.has(track) and audio.has(f"{track}_{start}"):  # cut already
                    offset, name = 0.0, f"{track}_{start}"
                else:
                    name = track
                yield from report.row(
                    record["caption"],
                    "jamendomaxcaps",
                    audio_key=f"jamendo:{track}:{start}",
                    audio_path=audio.named(f"{track}.mp3", [name]),
                    offset=offset,
                    duration=duration,
                    split="train",
                    license=LICENSE,
                    genres=genres.get(track, []),
                )


CORPUS = Corpus(
    name="jamendomaxcaps",
    home=HOME,
    splits=("train",),
    default_splits=("train",),
    rows=rows,
    extra=(pa.field("genres", pa.list_(pa.string())),),
)
