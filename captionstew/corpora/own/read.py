"""Your own data: a folder with audio files and two tables.

    captions.csv   file,caption                       several rows per file allowed
    metadata.csv   file,label[,labels,fold,speaker,...]    optional; one row per file, empty = unknown

`file` is relative to the folder. `labels` and `events` hold several values separated by `;`, an
event being `label@onset-offset` in seconds, and [onset, offset, label] in the supervision's
`custom`. Every other column becomes a string there. A folder of such folders is read as several
sources, each named after its subfolder. Tables are UTF-8 (with or without a byte order mark).

What makes the whole folder unusable (no table, a missing column, another encoding, nothing left)
raises FolderError; a single bad row or file is left out, counted and listed in the report.
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tqdm import tqdm

from captionstew.data.audio import MAX_DURATION, AudioInfo, BadAudio, inspect_audio
from captionstew.data.captions import normalise_caption
from captionstew.data.manifests.cuts import make_cut
from captionstew.data.manifests.rows import RESERVED
from captionstew.errors import UserError
from captionstew.files import atomic_write

if TYPE_CHECKING:
    from lhotse import MonoCut


class FolderError(UserError):
    """A folder that cannot be read at all; the message names the file and says what to do."""


@dataclass(frozen=True)
class Rejected:
    """One row or file that was left out: `file` is relative to the corpus folder, `row` a line
    number.
    """

    file: str
    reason: str
    kind: str
    row: int | None = None

    def __str__(self) -> str:
        return f"{self.file}{f', line {self.row}' if self.row else ''}: {self.reason}"


@dataclass
class FolderReport:
    """What was read and what was left out and why."""

    folder: str
    clips: dict[str, int] = field(default_factory=dict)  # source -> clips kept
    captions: dict[str, int] = field(default_factory=dict)  # source -> captions kept
    hours: dict[str, float] = field(default_factory=dict)  # source -> hours kept
    rejected: list[Rejected] = field(default_factory=list)
    skipped_folders: list[str] = field(default_factory=list)

    def reject(self, file: str, reason: str, kind: str, row: int | None = None) -> None:
        self.rejected.append(Rejected(file, reason, kind, row))

    def counts(self) -> dict[str, int]:
        """Kind of rejection -> how many."""
        return dict(sorted(Counter(item.kind for item in self.rejected).items()))

    def to_dict(self) -> dict:
        totals = {"clips": sum(self.clips.values()), "captions": sum(self.captions.values())}
        totals["hours"] = round(sum(self.hours.values()), 4)
        return {
            "folder": self.folder,
            "total": totals,
            "clips": self.clips,
            "captions": self.captions,
            "hours": {source: round(hours, 4) for source, hours in self.hours.items()},
            "rejected": self.counts(),
            "skipped_folders": self.skipped_folders,
        }


@dataclass(frozen=True)
class _Clip:
    source: str
    file: str  # as in the tables, relative to the source's folder
    path: Path
    captions: list[str]
    labels: dict


def read_folder(
    folder: str | os.PathLike,
    num_jobs: int = 1,
    max_duration: float = MAX_DURATION,
    progress: bool = True,
) -> tuple[list["MonoCut"], FolderReport]:
    """The cuts of a folder, or of a folder of folders, in the tables' order, and the report.

    Every audio file is decoded to its end, in `num_jobs` processes. Raises FolderError when going
    on makes no sense.
    """
    folder = Path(folder)
    report = FolderReport(str(folder))
    clips: list[_Clip] = []
    for source_folder in _source_folders(folder, report):
        clips += _read_source(source_folder, report, prefix=source_folder.relative_to(folder))
    if not clips:
        raise FolderError(f"{folder}: no usable row is left; {_advice(report)}")
    cuts = []
    paths = [clip.path for clip in clips]
    for clip, found in zip(clips, inspect_files(paths, num_jobs, progress), strict=True):
        name = f"{clip.source}/{clip.file}"
        if isinstance(found, str):
            report.reject(name, found, "bad audio")
        elif found.duration > max_duration:
            report.reject(
                name, f"{found.duration:.3f} s is longer than {max_duration} s", "too long"
            )
        else:
            sources = [clip.source] * len(clip.captions)
            labels = clip.labels | {"fingerprint": found.fingerprint}
            cuts.append(make_cut(name, clip.path, found, clip.captions, sources, labels))
            report.clips[clip.source] = report.clips.get(clip.source, 0) + 1
            report.captions[clip.source] = report.captions.get(clip.source, 0) + len(clip.captions)
            report.hours[clip.source] = report.hours.get(clip.source, 0.0) + found.duration / 3600
    if not cuts:
        raise FolderError(f"{folder}: no usable audio is left; {_advice(report)}")
    return cuts, report


def write_rejected(path: str | os.PathLike, rejected: Iterable[Rejected]) -> None:
    """`rejected.csv`: file, line of the table (if any), kind, reason."""
    with atomic_write(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "line", "kind", "reason"])
        writer.writerows([item.file, item.row or "", item.kind, item.reason] for item in rejected)


def inspect_files(
    paths: list[Path], num_jobs: int, progress: bool = True
) -> Iterable[AudioInfo | str]:
    """For each file what it holds, or the reason why it is bad; in order, from `num_jobs`
    processes.
    """
    bar = {"total": len(paths), "desc": "inspect audio", "unit": "file", "disable": not progress}
    if num_jobs <= 1 or len(paths) < 64:
        yield from tqdm(map(_inspect, paths), **bar)
        return
    with ProcessPoolExecutor(num_jobs) as pool:
        yield from tqdm(pool.map(_inspect, paths, chunksize=16), **bar)


def _inspect(path: Path) -> AudioInfo | str:
    try:
        return inspect_audio(path)
    except BadAudio as error:
        return error.reason


def _source_folders(folder: Path, report: FolderReport) -> list[Path]:
    """The folder itself when it has captions.csv, else its subfolders that have; the others are
    reported.
    """
    if not folder.is_dir():
        raise FolderError(f"{folder}: no such folder")
    if (folder / "captions.csv").is_file():
        return [folder]
    subfolders = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    found = [path for path in subfolders if (path / "captions.csv").is_file()]
    report.skipped_folders += [path.name for path in subfolders if path not in found]
    if not found:
        raise FolderError(
            f"{folder}: no captions.csv here or in a subfolder; write one with the columns"
            " file,caption"
        )
    return found


def _read_source(folder: Path, report: FolderReport, prefix: Path) -> list[_Clip]:
    source = folder.resolve().name
    captions = _read_captions(folder, report, prefix)
    labels = _read_metadata(folder, report, prefix) if (folder / "metadata.csv").is_file() else {}
    table = str(prefix / "metadata.csv")
    for file in [file for file in labels if file not in captions]:
        report.reject(
            table, f"{file!r} has labels but no caption; the clip is left out", "no caption"
        )
    return [
        _Clip(source, file, folder / file, texts, labels.get(file, {}))
        for file, texts in captions.items()
    ]


def _read_captions(folder: Path, report: FolderReport, prefix: Path) -> dict[str, list[str]]:
    """file -> its captions, in the table's order; bad rows go to the report."""
    table = str(prefix / "captions.csv")
    captions: dict[str, list[str]] = {}
    for number, row in _read_table(folder / "captions.csv", ("file", "caption")):
        if problem := _row_problem(folder, row):
            report.reject(table, *problem, number)
            continue
        file, caption = _normal_name(row["file"]), normalise_caption(row["caption"] or "")
        if not caption:
            report.reject(
                table,
                f"empty caption for {file!r}; write one or delete the row",
                "empty caption",
                number,
            )
        elif caption in captions.get(file, []):
            report.reject(table, f"repeats an earlier row of {file!r}", "duplicate row", number)
        else:
            captions.setdefault(file, []).append(caption)
    return captions


def _read_metadata(folder: Path, report: FolderReport, prefix: Path) -> dict[str, dict]:
    """file -> its labels; bad rows go to the report."""
    table = str(prefix / "metadata.csv")
    labels: dict[str, dict] = {}
    for number, row in _read_table(folder / "metadata.csv", ("file", "label")):
        if problem := _row_problem(folder, row):
            report.reject(table, *problem, number)
            continue
        file = _normal_name(row["file"])
        if file in labels:
            report.reject(
                table, f"{file!r} has an earlier row, which is kept", "duplicate row", number
            )
            continue
        try:
            labels[file] = _parse_labels(row)
        except ValueError as error:
            report.reject(table, f"{error}; the clip is used without labels", "bad label", number)
    return labels


def _parse_labels(row: dict[str, str]) -> dict:
    """A metadata row without its empty fields; raises ValueError for a malformed fold or event."""
    values = {
        name: value.strip()
        for name, value in row.items()
        if name != "file" and value and value.strip()
    }
    if "labels" in values or "label" in values:
        tags = values.get("labels", values.get("label", "")).split(";")
        values["labels"] = [tag.strip() for tag in tags if tag.strip()]
    if "fold" in values:
        if not values["fold"].isdigit():
            raise ValueError(f"fold must be a whole number, got {values['fold']!r}")
        values["fold"] = int(values["fold"])
    if "events" in values:
        values["events"] = [
            _parse_event(event) for event in values["events"].split(";") if event.strip()
        ]
    return values


def _parse_event(text: str) -> list:
    """`label@onset-offset` -> [onset, offset, label], as the labelled corpora have it."""
    label, _, times = text.strip().rpartition("@")
    onset, _, offset = times.partition("-")
    try:
        event = [float(onset), float(offset), label]
    except ValueError:
        event = None
    if not event or not label or not 0 <= event[0] < event[1]:
        raise ValueError(f"event {text!r} is not of the form label@onset-offset (seconds)")
    return event


def _row_problem(folder: Path, row: dict) -> tuple[str, str] | None:
    """(reason, kind) when the row cannot be used, whatever its other columns say."""
    if None in row:
        return (
            "more fields than columns; put texts that hold commas into double quotes",
            "malformed row",
        )
    if any(value is None for value in row.values()):
        return "fewer fields than columns", "malformed row"
    file = row["file"].strip()
    if not file:
        return "empty file name", "malformed row"
    name = _normal_name(file)
    if os.path.isabs(file) or name == ".." or name.startswith("../"):
        return (
            f"{file!r} points outside the folder; copy or link the audio into it",
            "outside the folder",
        )
    if not (folder / name).is_file():
        return f"{file!r} does not exist in {folder}", "missing audio"
    return None


def _normal_name(file: str) -> str:
    """`audio/./a.wav` and `audio//a.wav` are one clip: the shortest form, with forward slashes."""
    return str(PurePosixPath(os.path.normpath(file.strip())))


def _read_table(path: Path, required: tuple[str, ...]) -> Iterable[tuple[int, dict[str, str]]]:
    """(line number, row) of a UTF-8 CSV file; raises FolderError for another encoding or a missing
    column.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FolderError(
            f"{path}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}); save the table as"
            " UTF-8"
        ) from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = reader.fieldnames or []
        missing = [name for name in required if name not in columns]
        if missing:
            found = ", ".join(columns) or "none"
            raise FolderError(
                f"{path}: column {', '.join(missing)} is missing (found: {found}); add it to line 1"
            )
        repeated = [
            name for name, count in Counter(columns).items() if count > 1 or name in RESERVED
        ]
        if repeated:
            raise FolderError(
                f"{path}: column {', '.join(repeated)} is reserved or repeated; rename it in line 1"
            )
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise FolderError(f"{path}, line {reader.line_num}: {error}; check the quotes") from None


def _advice(report: FolderReport) -> str:
    reasons = "; ".join(str(item) for item in report.rejected[:3])
    return (
        f"{len(report.rejected)} left out, the first: {reasons}"
        if reasons
        else "the tables are empty"
    )
