"""The audio check: which clips of the table have audio, what that audio really is, and what is
missing.

A clip may have several candidate files; the first one that can be used counts. A missing or broken
file is never an error: it is counted per source, and listed so that it can be fetched.
"""

import gzip
import hashlib
import math
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captionstew.data.audio import MAX_DURATION, AudioInfo, BadAudio, inspect_audio
from captionstew.data.tables.audio_results import ENDING, KnownAudio, remember
from captionstew.data.tables.caption_table import write_batches, write_rows
from captionstew.data.tables.clip_table import CLIP_SCHEMA
from captionstew.files import atomic_write, write_json, write_text
from captionstew.parallel import run_shares

CLIPS_PER_SHARE = 2_000
# seconds by which a YouTube clip's file may be longer than announced before it is taken for the
# whole video
EXCESS = 2.0
YOUTUBE_SECONDS = 10.0  # of a clip whose release does not say
FOUND, MISSING, BROKEN, TOO_LONG = "found", "missing", "broken", "too long"
HELD_OUT = "held out"  # the very samples of an evaluation clip
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
        ("decoder", pa.string()),
        ("cancelling", pa.bool_()),  # channels whose mean is next to nothing
    ]
)
CANCEL = "the mean of its channels is next to silence"
LISTS = (  # file, and the clips it lists: column and values
    ("missing", "status", (MISSING,)),
    ("broken", "status", (BROKEN, TOO_LONG)),
    ("held_out", "status", (HELD_OUT,)),
    ("cancelling", "cancelling", (True,)),
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
    held_out: Mapping[str, str] | None = None,
) -> dict:
    """Decode the audio of every clip; returns the coverage table (see `coverage`).

    Writes to `folder`: checked.parquet (clips with audio), missing.txt, broken.txt and held_out.txt
    (one path and reason a line), cancelling.txt (clips whose channels cancel, which are used),
    missing_youtube.tsv.gz (address, section of the video and path of each missing YouTube clip),
    coverage.json and coverage.md. `held_out`: fingerprint -> the evaluation clip that has it; clips
    of that sound are left out. An interrupted check goes on where it stopped; a finished one looks
    at every file anew, because audio may have come since.
    """
    parts = inspect_clips(clips, folder, max_duration, num_jobs, dask_scheduler, clips_per_share)
    checked = _Checked(parts, held_out or {})
    table = coverage(checked)
    write_batches(
        folder / "checked.parquet", CHECKED_SCHEMA, checked.select(lambda status: status == FOUND)
    )
    for name, column, values in LISTS:
        lines = (
            f"{clip['audio_key']}\t{clip['path']}\t{clip['reason'] or CANCEL}\n"
            for batch in checked.select(values.__contains__, column)
            for clip in batch.to_pylist()
        )
        _write_lines(folder / f"{name}.txt", lines)
    _write_youtube(folder / "missing_youtube.tsv.gz", checked)
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
    of them away. What was decoded is remembered in `folder` (`audio_results`): a later check
    decodes what is new or changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remember(folder)  # what a killed check had found
    share_folder = folder / f"shares-{_digest(clips, max_duration, clips_per_share)}"
    shares = list(_shares(clips, share_folder, max_duration, clips_per_share))
    todo = [share for share in shares if not share.output.is_file()]
    run_shares(
        _check_share, todo, num_jobs=num_jobs, dask_scheduler=dask_scheduler, title="audio check"
    )
    remember(folder)
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
    known = KnownAudio(share.output.parent.parent)
    inspect = lru_cache(maxsize=64)(known.inspect)  # segments of one track lie next to each other
    rows = [{**clip, **check_clip(clip, inspect, share.max_duration)} for clip in table.to_pylist()]
    known.close()
    share.output.parent.mkdir(parents=True, exist_ok=True)
    known.write_found(share.output.with_suffix(ENDING))
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
        offset = offset_of_clip(clip["audio_key"], file, info)
        status, reason, duration = _judge(file, info, offset, max_duration)
        if status == FOUND:
            return {
                "status": FOUND,
                "reason": None,
                "path": file["path"],
                "offset": offset,
                "clip_duration": duration,
                "file_duration": info.duration,
                "sampling_rate": info.sampling_rate,
                "channels": info.channels,
                "num_samples": info.num_samples,
                "fingerprint": info.fingerprint,
                "decoder": info.decoder,
                "cancelling": info.cancelling,
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


def offset_of_clip(audio_key: str, file: dict, info: AudioInfo) -> float | None:
    """Where a clip begins in its file (seconds): in a whole YouTube video, which is named after the
    video alone and longer than the clip, at the second of the clip's key. None where a YouTube
    file holds more than the clip and its name or the key does not say where.
    """
    space, _, rest = audio_key.partition(":")
    announced = file["duration"]
    is_longer = announced is not None and info.duration > announced + EXCESS
    if space != "yt" or file["offset"] > 0 or not is_longer:
        return file["offset"]
    video, _, start = rest.partition(":")
    stem = os.path.splitext(os.path.basename(file["path"]))[0]
    return float(start) if start.isdigit() and stem.endswith((video, f"[{video}]")) else None


def _judge(
    file: dict, info: AudioInfo, offset: float | None, max_duration: float
) -> tuple[str, str | None, float]:
    announced = file["duration"]
    if offset is None:
        return (
            BROKEN,
            f"lasts {info.duration:.2f} s, the clip {announced:.2f} s: cut the clip out of the"
            " video",
            0.0,
        )
    left = info.duration - offset
    if left <= 0:
        return (
            BROKEN,
            f"lasts {info.duration:.2f} s but the clip begins at {offset:.2f} s",
            0.0,
        )
    duration = left if announced is None else min(left, announced)
    if duration > max_duration:
        return TOO_LONG, f"{duration:.2f} s is longer than {max_duration:g} s", duration
    return FOUND, None, duration


def fingerprints(
    clips: Path,
    folder: Path,
    num_jobs: int = 1,
    dask_scheduler: str | None = None,
) -> dict[str, str]:
    """Fingerprint -> "<key> (<list>)" of evaluation clips, a table with `list`, `audio_key` and
    `files`; clips that cannot be read have none.
    """
    found: dict[str, str] = {}
    parts = inspect_clips(clips, folder, math.inf, num_jobs, dask_scheduler)
    for part in parts:
        for clip in pq.read_table(part, columns=["list", "audio_key", "fingerprint"]).to_pylist():
            if clip["fingerprint"] is not None:
                found.setdefault(clip["fingerprint"], f"{clip['audio_key']} ({clip['list']})")
    remove_shares(folder)
    return found


class _Checked:
    """The inspected clips, those of held-out sounds marked as such."""

    def __init__(self, parts: list[Path], held_out: Mapping[str, str]) -> None:
        self.parts = parts
        self.held_out = held_out
        self._fingerprints = pa.array(list(held_out), pa.string())

    def batches(self) -> Iterator[pa.RecordBatch]:
        for part in self.parts:
            for batch in pq.ParquetFile(part).iter_batches():
                yield self._mark(batch)

    def _mark(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        held = pc.is_in(batch["fingerprint"], value_set=self._fingerprints)
        if not pc.any(held).as_py():
            return batch
        names = pc.if_else(held, batch["fingerprint"], None).to_pylist()
        reasons = [f"the same sound as {self.held_out[x]}" if x else None for x in names]
        marked = {
            "status": pc.if_else(held, HELD_OUT, batch["status"]),
            "reason": pc.if_else(held, pa.array(reasons, pa.string()), batch["reason"]),
        }
        columns = [marked.get(name, batch[name]) for name in batch.schema.names]
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)

    def select(
        self, wanted: Callable[[object], bool], column: str = "status"
    ) -> Iterator[pa.RecordBatch]:
        for batch in self.batches():
            mask = [wanted(value) for value in batch[column].to_pylist()]
            yield batch.filter(pa.array(mask, pa.bool_()))


def coverage(checked: _Checked) -> dict:
    """Per source and in all: clips listed, found, missing, broken, too long, held out if any are,
    and hours found; how many each decoder read, and of how many the channels cancel.

    A clip counts for each of its sources, and once in the total.
    """
    decoders: Counter[str] = Counter()
    cancelling = 0
    clips: dict[str, Counter] = defaultdict(Counter)
    seconds: defaultdict[str, float] = defaultdict(float)
    for batch in checked.batches():
        asked = ["sources", "status", "clip_duration", "decoder", "cancelling"]
        for clip in batch.select(asked).to_pylist():
            if clip["status"] == FOUND:
                decoders[clip["decoder"]] += 1
                cancelling += clip["cancelling"]
            for source in {"all"} | {x for names in clip["sources"] for x in names.split("+")}:
                clips[source][clip["status"]] += 1
                clips[source]["listed"] += 1
                if clip["status"] == FOUND:
                    seconds[source] += clip["clip_duration"]
    columns = ["listed", FOUND, MISSING, BROKEN, TOO_LONG]
    columns += [HELD_OUT] if any(counts[HELD_OUT] for counts in clips.values()) else []
    rows = {
        source: (
            {name: counts[name] for name in columns} | {"hours": round(seconds[source] / 3600, 4)}
        )
        for source, counts in clips.items()
    }
    total = rows.pop("all", dict.fromkeys([*columns, "hours"], 0))
    return {
        "total": total,
        "sources": dict(sorted(rows.items())),
        "decoders": dict(sorted(decoders.items())),
        "cancelling": cancelling,
    }


def coverage_as_markdown(table: dict) -> str:
    """The coverage table as a page."""
    columns = [name for name in table["total"] if name != "hours"]
    lines = ["# Audio found, per source", "", f"| source | {' | '.join(columns)} | hours |"]
    lines.append("|" + "---|" * (len(columns) + 2))
    for source, row in {**table["sources"], "all": table["total"]}.items():
        cells = [str(row[x]) for x in columns]
        lines.append(f"| {source} | {' | '.join(cells)} | {row['hours']:.2f} |")
    if HELD_OUT in columns:
        lines += ["", "Held out: the same samples as an evaluation clip; see held_out.txt."]
    read = ", ".join(f"{name} {count}" for name, count in table["decoders"].items()) or "none"
    lines += ["", f"Clips by decoder: {read}."]
    if table["cancelling"]:
        lines.append(
            f"Clips whose channels cancel, so that their mean is next to silence:"
            f" {table['cancelling']} (cancelling.txt)."
        )
    return "\n".join(lines) + "\n"


def _write_youtube(path: Path, checked: _Checked) -> None:
    """What a downloader needs: `*<start>-<end>` in seconds, empty where the start is unknown."""
    with atomic_write(path) as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        for batch in checked.select((MISSING,).__contains__):
            for clip in batch.select(["audio_key", "files", "path"]).to_pylist():
                space, _, rest = clip["audio_key"].partition(":")
                if space != "yt":
                    continue
                video, _, start = rest.partition(":")
                seconds = clip["files"][0]["duration"] or YOUTUBE_SECONDS
                section = f"*{start}-{int(start) + seconds:g}" if start.isdigit() else ""
                address = f"https://www.youtube.com/watch?v={video}"
                packed.write(f"{address}\t{section}\t{clip['path']}\n".encode())


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    with atomic_write(path, "w", encoding="utf-8") as stream:
        stream.writelines(lines)
