"""The audio check: which clips of the table have audio, what that audio really is, and what is
missing.

A clip may have several candidate files; the first one that can be used counts. A missing or broken
file is never an error: it is counted per source, and listed so that it can be fetched.
"""

import hashlib
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captionstew.data.audio import MAX_DURATION, AudioInfo, BadAudio, inspect_audio
from captionstew.data.tables.caption_table import write_batches, write_rows
from captionstew.data.tables.clip_table import CLIP_SCHEMA
from captionstew.files import atomic_write, write_json, write_text
from captionstew.parallel import run_shares

CLIPS_PER_SHARE = 2_000
# seconds by which a YouTube clip's file may be longer than announced before it is taken for the
# whole video
EXCESS = 2.0
FOUND, MISSING, BROKEN, TOO_LONG = "found", "missing", "broken", "too long"
CHECK_SCHEMA = pa.schema(
    [
        ("status", pa.string()),
        ("reason", pa.string()),
        ("path", pa.string()),
        ("offset", pa.float64()),
        ("clip_duration", pa.float64()),  # seconds, true
        ("file_duration", pa.float64()),
        ("sampling_rate", pa.int32()),
        ("channels", pa.int32()),
        ("num_samples", pa.int64()),
        ("fingerprint", pa.string()),
    ]
)
CHECKED_SCHEMA = pa.schema([*CLIP_SCHEMA, *CHECK_SCHEMA])


@dataclass(frozen=True)
class _Share:
    clips: Path
    row_group: int
    start: int
    count: int
    output: Path
    max_duration: float


def check_audio(
    clips: Path,
    folder: Path,
    *,
    max_duration: float = MAX_DURATION,
    num_jobs: int = 1,
    dask_scheduler: str | None = None,
    clips_per_share: int = CLIPS_PER_SHARE,
) -> dict:
    """Decode the audio of every clip; returns the coverage table (see `coverage`).

    Writes to `folder`: checked.parquet (clips with audio), missing.txt and broken.txt (one path and
    reason a line), coverage.json and coverage.md. An interrupted check goes on where it stopped; a
    finished one starts anew, because audio may have come since.
    """
    parts = inspect_clips(clips, folder, max_duration, num_jobs, dask_scheduler, clips_per_share)
    table = coverage(parts)
    write_batches(
        folder / "checked.parquet", CHECKED_SCHEMA, _select(parts, lambda status: status == FOUND)
    )
    for name, statuses in (("missing", (MISSING,)), ("broken", (BROKEN, TOO_LONG))):
        lines = (
            f"{clip['audio_key']}\t{clip['path']}\t{clip['reason']}\n"
            for batch in _select(parts, statuses.__contains__)
            for clip in batch.to_pylist()
        )
        _write_lines(folder / f"{name}.txt", lines)
    write_json(folder / "coverage.json", table)
    write_text(folder / "coverage.md", coverage_as_markdown(table))
    remove_shares(folder)
    return table


def inspect_clips(
    clips: Path,
    folder: Path,
    max_duration: float = MAX_DURATION,
    num_jobs: int = 1,
    dask_scheduler: str | None = None,
    clips_per_share: int = CLIPS_PER_SHARE,
) -> list[Path]:
    """Decode the audio of every row of a table with `audio_key` and `files`.

    Returns Parquet files below `folder` that hold the table's rows in order, with the CHECK_SCHEMA
    columns. Those that an interrupted check has finished are used again; `remove_shares` takes all
    of them away.
    """
    share_folder = folder / f"shares-{_digest(clips, max_duration, clips_per_share)}"
    shares = list(_shares(clips, share_folder, max_duration, clips_per_share))
    todo = [share for share in shares if not share.output.is_file()]
    run_shares(
        _check_share, todo, num_jobs=num_jobs, dask_scheduler=dask_scheduler, title="audio check"
    )
    return [share.output for share in shares]


def remove_shares(folder: Path) -> None:
    for leftover in folder.glob("shares-*"):
        shutil.rmtree(leftover)


def _digest(clips: Path, *settings: float) -> str:
    """Names the shares of one table: another table, or other settings, must not find them."""
    with open(clips, "rb") as file:
        content = hashlib.file_digest(file, "blake2b").digest()
    return hashlib.blake2b(content + repr(settings).encode(), digest_size=8).hexdigest()


def _shares(clips: Path, folder: Path, max_duration: float, size: int) -> Iterator[_Share]:
    metadata = pq.ParquetFile(clips).metadata
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        for start in range(0, rows, size):
            output = folder / f"{group:05d}-{start:06d}.parquet"
            yield _Share(clips, group, start, min(size, rows - start), output, max_duration)


def _check_share(share: _Share) -> None:
    table = (
        pq.ParquetFile(share.clips).read_row_group(share.row_group).slice(share.start, share.count)
    )
    inspect = lru_cache(maxsize=64)(inspect_audio)  # segments of one track lie next to each other
    rows = ({**clip, **check_clip(clip, inspect, share.max_duration)} for clip in table.to_pylist())
    write_rows(share.output, pa.schema([*table.schema, *CHECK_SCHEMA]), rows)


def check_clip(
    clip: dict,
    inspect: Callable[[str], AudioInfo] = inspect_audio,
    max_duration: float = MAX_DURATION,
) -> dict:
    """The CHECK_SCHEMA columns of a clip: its first usable file, or why there is none (of the best
    candidate).
    """
    failures: list[tuple[str, str | None, dict]] = []
    for file in clip["files"]:
        if not os.path.isfile(file["path"]):
            failures.append((MISSING, "file does not exist", file))
            continue
        try:
            info = inspect(file["path"])
        except BadAudio as error:
            failures.append((BROKEN, error.reason, file))
            continue
        status, reason, duration = _judge(clip["audio_key"], file, info, max_duration)
        if status == FOUND:
            return {
                "status": FOUND,
                "reason": None,
                "path": file["path"],
                "offset": file["offset"],
                "clip_duration": duration,
                "file_duration": info.duration,
                "sampling_rate": info.sampling_rate,
                "channels": info.channels,
                "num_samples": info.num_samples,
                "fingerprint": info.fingerprint,
            }
        failures.append((status, reason, file))
    # A broken file is worth more attention than a second place where nothing was expected.
    status, reason, file = next((x for x in failures if x[0] != MISSING), failures[0])
    return dict.fromkeys(CHECK_SCHEMA.names) | {
        "status": status,
        "reason": reason,
        "path": file["path"],
        "offset": file["offset"],
    }


def _judge(
    audio_key: str, file: dict, info: AudioInfo, max_duration: float
) -> tuple[str, str | None, float]:
    left = info.duration - file["offset"]
    announced = file["duration"]
    if left <= 0:
        return (
            BROKEN,
            f"lasts {info.duration:.2f} s but the clip begins at {file['offset']:.2f} s",
            0.0,
        )
    whole_video = announced is not None and file["offset"] == 0 and left > announced + EXCESS
    if audio_key.startswith("yt:") and whole_video:
        return (
            BROKEN,
            f"lasts {left:.2f} s, the clip {announced:.2f} s: cut the clip out of the video",
            0.0,
        )
    duration = left if announced is None else min(left, announced)
    if duration > max_duration:
        return TOO_LONG, f"{duration:.2f} s is longer than {max_duration:g} s", duration
    return FOUND, None, duration


def _select(parts: list[Path], wanted: Callable[[str], bool]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        for batch in pq.ParquetFile(part).iter_batches():
            yield batch.filter(
                pa.array([wanted(status) for status in batch["status"].to_pylist()], pa.bool_())
            )


def coverage(parts: list[Path]) -> dict:
    """Per source and in all: clips listed, found, missing, broken, too long, and hours found.

    A clip counts for each of its sources, and once in the total.
    """
    clips: dict[str, Counter] = defaultdict(Counter)
    seconds: defaultdict[str, float] = defaultdict(float)
    for part in parts:
        for clip in pq.read_table(part, columns=["sources", "status", "clip_duration"]).to_pylist():
            for source in {"all"} | {x for names in clip["sources"] for x in names.split("+")}:
                clips[source][clip["status"]] += 1
                clips[source]["listed"] += 1
                seconds[source] += clip["clip_duration"] or 0.0
    rows = {
        source: (
            {name: counts[name] for name in ("listed", FOUND, MISSING, BROKEN, TOO_LONG)}
            | {"hours": round(seconds[source] / 3600, 4)}
        )
        for source, counts in clips.items()
    }
    total = rows.pop("all", dict.fromkeys(("listed", FOUND, MISSING, BROKEN, TOO_LONG, "hours"), 0))
    return {"total": total, "sources": dict(sorted(rows.items()))}


def coverage_as_markdown(table: dict) -> str:
    """The coverage table as a page."""
    lines = [
        "# Audio found, per source",
        "",
        "| source | listed | found | missing | broken | too long | hours |",
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for source, row in {**table["sources"], "all": table["total"]}.items():
        cells = [str(row[x]) for x in ("listed", FOUND, MISSING, BROKEN, TOO_LONG)]
        lines.append(f"| {source} | {' | '.join(cells)} | {row['hours']:.2f} |")
    return "\n".join(lines) + "\n"


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    with atomic_write(path, "w", encoding="utf-8") as stream:
        stream.writelines(lines)
