"""Your own data: a folder with audio files and tables. The one reader of such a folder.

    captions.csv   file,caption                     several rows per file allowed
    metadata.csv   file[,label,labels,split,fold,   optional; one row per file, empty = unknown
                   speaker,events,licence,...]

`file` is relative to the folder. `labels` and `events` hold several values separated by `;`, an
event being `label@onset-offset` in seconds, and [onset, offset, label] in the supervision's
`custom`. Every other column becomes a string there. A folder of such folders is read as several
sources, each named after its subfolder. Tables are UTF-8 (with or without a byte order mark).

What makes the whole folder unusable (no table, a missing column, another encoding, nothing left)
raises FolderError; a single bad row or file is left out, counted and listed in the report.
"""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from captionstew.corpora.own.audio_names import AudioNames, normal_name
from captionstew.corpora.own.csv_rows import FolderError, Row, read_rows
from captionstew.corpora.own.split import parse_fold, parse_split
from captionstew.data.audio import MAX_DURATION, AudioInfo, BadAudio, inspect_audio
from captionstew.data.captions import has_hidden_characters, normalise_caption
from captionstew.data.manifests.cuts import make_cut
from captionstew.data.manifests.rows import RESERVED
from captionstew.files import atomic_write
from captionstew.parallel import process_map

if TYPE_CHECKING:
    from lhotse import MonoCut

CAPTIONS, METADATA, QUESTIONS = "captions.csv", "metadata.csv", "questions.csv"


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
    without_row: list[str] = field(default_factory=list)  # audio files that no table names
    cleaned: list[str] = field(default_factory=list)  # rows whose hidden characters were removed
    decoders: Counter[str] = field(default_factory=Counter)  # name -> clips kept
    cancelling: list[str] = field(default_factory=list)  # clips kept, the mean next to silence

    def reject(self, file: str, reason: str, kind: str, row: int | None = None) -> None:
        self.rejected.append(Rejected(file, reason, kind, row))

    def count(self, clip: "Clip", found: AudioInfo) -> None:
        source = clip.source
        self.clips[source] = self.clips.get(source, 0) + 1
        self.captions[source] = self.captions.get(source, 0) + len(clip.captions)
        self.hours[source] = self.hours.get(source, 0.0) + found.duration / 3600
        self.decoders[found.decoder] += 1
        if found.cancelling:
            self.cancelling.append(clip.key)

    def counts(self) -> dict[str, int]:
        """Kind of rejection -> how many."""
        return dict(sorted(Counter(item.kind for item in self.rejected).items()))

    def to_dict(self) -> dict:
        totals: dict = {"clips": sum(self.clips.values()), "captions": sum(self.captions.values())}
        totals["hours"] = round(sum(self.hours.values()), 4)
        return {
            "folder": self.folder,
            "total": totals,
            "clips": self.clips,
            "captions": self.captions,
            "hours": {source: round(hours, 4) for source, hours in self.hours.items()},
            "rejected": self.counts(),
            "skipped_folders": self.skipped_folders,
            "without_row": self.without_row,
            "cleaned": len(self.cleaned),
            "decoders": dict(sorted(self.decoders.items())),
            "cancelling": self.cancelling,
        }

    def without_row_line(self) -> str:
        """One line that counts the audio files that no table names."""
        verb = "file has" if len(self.without_row) == 1 else "files have"
        return f"{len(self.without_row)} audio {verb} no row: {_first(self.without_row)}"

    def cleaned_line(self) -> str:
        """One line that counts the captions that were cleaned."""
        noun = "caption" if len(self.cleaned) == 1 else "captions"
        return (
            f"{len(self.cleaned)} {noun} had hidden characters, which were removed:"
            f" {_first(self.cleaned)}"
        )

    def cancelling_line(self) -> str:
        """One line that counts the clips whose channels cancel."""
        count = len(self.cancelling)
        verb = "clip has" if count == 1 else "clips have"
        return (
            f"{count} {verb} channels that cancel, and are next to silence as their mean:"
            f" {_first(self.cancelling)}"
        )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


@dataclass(frozen=True)
class Clip:
    """An audio file with what the tables say of it; a clip without captions has labels alone."""

    source: str
    file: str  # as normal_name gives it, relative to the source's folder
    path: Path
    captions: list[str]
    facts: dict  # of metadata.csv: label, labels, events, split, fold, speaker, ...

    @property
    def key(self) -> str:
        """Its name in manifests, `<source>/<file>`, which a hash of the split depends on."""
        return f"{self.source}/{self.file}"


def folder_name(folder: str | os.PathLike) -> str:
    """The folder's own name, whatever a link of that name points to."""
    return os.path.basename(os.path.abspath(folder))


def is_folder_corpus(folder: Path) -> bool:
    """Has `captions.csv`, or a subfolder that has."""
    return (folder / CAPTIONS).is_file() or any(folder.glob(f"*/{CAPTIONS}"))


def source_folders(folder: Path, report: FolderReport, tables: Sequence[str]) -> list[Path]:
    """The folder itself when it has one of the tables, else its subfolders that have; the others
    are reported.
    """
    if not folder.is_dir():
        raise FolderError(f"{folder}: no such folder")

    def has_table(path: Path) -> bool:
        return any((path / table).is_file() for table in tables)

    if has_table(folder):
        return [folder]
    subfolders = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    found = [path for path in subfolders if has_table(path)]
    report.skipped_folders += [path.name for path in subfolders if path not in found]
    if not found:
        raise FolderError(
            f"{folder}: no {' or '.join(tables)} here or in a subfolder; write one with the columns"
            f" {'file,caption' if CAPTIONS in tables else 'file,question,answer'}"
        )
    return found


def read_clips(
    folder: Path,
    report: FolderReport,
    tables: Sequence[str] = (CAPTIONS,),
    expect_missing: bool = False,
) -> list[Clip]:
    """All clips that the tables name, in their order, those with labels alone last; no audio is
    decoded. Files that are not there are left out, or kept for a later check (`expect_missing`).

    Raises FolderError when the folder or a table cannot be read.
    """
    clips: list[Clip] = []
    for source_folder in source_folders(folder, report, tables):
        prefix = source_folder.relative_to(folder)
        names = AudioNames(source_folder, expect_missing)
        clips += _read_source(names, report, prefix, QUESTIONS in tables)
    return clips


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
    clips = [clip for clip in read_clips(folder, report) if clip.captions]
    if not clips:
        raise FolderError(f"{folder}: no usable row is left; {_advice(report)}")
    cuts = []
    paths = [clip.path for clip in clips]
    for clip, found in zip(clips, inspect_files(paths, num_jobs, progress), strict=True):
        if isinstance(found, str):
            report.reject(clip.key, found, "bad audio")
        elif found.duration > max_duration:
            report.reject(
                clip.key, f"{found.duration:.3f} s is longer than {max_duration} s", "too long"
            )
        else:
            sources = [clip.source] * len(clip.captions)
            labels = clip.facts | {"fingerprint": found.fingerprint}
            cuts.append(make_cut(clip.key, clip.path, found, clip.captions, sources, labels))
            report.count(clip, found)
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
    jobs = num_jobs if len(paths) >= 64 else 1
    yield from tqdm(process_map(_inspect, paths, jobs), **bar)


def _inspect(path: Path) -> AudioInfo | str:
    try:
        return inspect_audio(path)
    except BadAudio as error:
        return error.reason


def _read_source(
    names: AudioNames, report: FolderReport, prefix: Path, with_questions: bool
) -> list[Clip]:
    folder = names.folder
    named: set[str] = set()  # files of all rows, usable or not
    captions = _read_captions(folder, report, prefix, names, named)
    facts, left_out = _read_metadata(folder, report, prefix, names, named)
    asked = _read_asked(folder, names, named) if with_questions else []
    source = folder_name(folder)
    clips = []
    for file in dict.fromkeys([*captions, *facts, *asked]):
        if file not in left_out:
            path = names.find(file)
            assert path is not None  # rows of files that are not there are rejected
            clips.append(Clip(source, file, path, captions.get(file, []), facts.get(file, {})))
    for clip in clips if (folder / CAPTIONS).is_file() else ():
        if not clip.captions and not with_questions:
            table = str(prefix / METADATA)
            reason = f"{clip.file!r} has labels but no caption; the clip is left out"
            report.reject(table, reason, "no caption")
    report.without_row += [str(prefix / file) for file in names.paths if file not in named]
    return clips


def _read_captions(
    folder: Path, report: FolderReport, prefix: Path, names: AudioNames, named: set[str]
) -> dict[str, list[str]]:
    """file -> its captions, in the table's order; bad rows go to the report."""
    table = str(prefix / CAPTIONS)
    captions: dict[str, list[str]] = {}
    for row in _table(folder / CAPTIONS, ("file", "caption"), names):
        file = _usable_file(row, names, report, table, named)
        if file is None:
            continue
        caption = normalise_caption(row.values["caption"])
        if not caption:
            report.reject(
                table,
                f"empty caption for {file!r}; write one or delete the row",
                "empty caption",
                row.line,
            )
        elif caption in captions.get(file, []):
            report.reject(table, f"repeats an earlier row of {file!r}", "duplicate row", row.line)
        else:
            captions.setdefault(file, []).append(caption)
            if has_hidden_characters(row.values["caption"]):
                report.cleaned.append(f"{table}, line {row.line}")
    return captions


def _read_metadata(
    folder: Path, report: FolderReport, prefix: Path, names: AudioNames, named: set[str]
) -> tuple[dict[str, dict], set[str]]:
    """file -> its facts, and the files that have to be left out; bad rows go to the report."""
    table = str(prefix / METADATA)
    facts: dict[str, dict] = {}
    left_out: set[str] = set()
    for row in _table(folder / METADATA, ("file",), names):
        file = _usable_file(row, names, report, table, named)
        if file is None:
            continue
        if file in facts:
            report.reject(
                table, f"{file!r} has an earlier row, which is kept", "duplicate row", row.line
            )
            continue
        facts[file] = {name: text.strip() for name, text in row.values.items() if text.strip()}
        del facts[file]["file"]
        if "split" in facts[file]:
            facts[file]["split"] = parse_split(facts[file]["split"], folder / METADATA, row.line)
        if "fold" in facts[file]:
            fold = parse_fold(facts[file]["fold"])
            if fold is None:
                left_out.add(file)
                reason = f"fold must be a whole number, got {facts[file]['fold']!r}"
                report.reject(table, f"{reason}; the clip is left out", "bad fold", row.line)
            facts[file]["fold"] = fold
        try:
            facts[file] |= _parse_labels(facts[file])
        except ValueError as error:
            report.reject(table, f"{error}; the clip is used without labels", "bad label", row.line)
            kept = ("split", "fold", "speaker")
            facts[file] = {name: facts[file][name] for name in kept if name in facts[file]}
    return facts, left_out


def _read_asked(folder: Path, names: AudioNames, named: set[str]) -> list[str]:
    """The usable files of questions.csv; its reader reports the others."""
    unreported = FolderReport(str(folder))
    rows = _table(folder / QUESTIONS, ("file",), names)
    files = (_usable_file(row, names, unreported, QUESTIONS, named) for row in rows)
    return [file for file in files if file is not None]


def _table(path: Path, required: tuple[str, ...], names: AudioNames) -> Iterable[Row]:
    if not path.is_file():
        return ()
    return read_rows(path, required, RESERVED, lambda text: normal_name(text) in names.paths)


def _parse_labels(facts: dict[str, str]) -> dict:
    """`labels` and `events` as lists; raises ValueError for a malformed event."""
    parsed: dict = {}
    if "labels" in facts or "label" in facts:
        tags = facts.get("labels", facts.get("label", "")).split(";")
        parsed["labels"] = [tag.strip() for tag in tags if tag.strip()]
    if "events" in facts:
        parsed["events"] = [
            _parse_event(event) for event in facts["events"].split(";") if event.strip()
        ]
    return parsed


def _parse_event(text: str) -> list:
    """`label@onset-offset` -> [onset, offset, label], as the labelled corpora have it."""
    label, _, times = text.strip().rpartition("@")
    onset, _, offset = times.partition("-")
    try:
        start, end = float(onset), float(offset)
    except ValueError:
        start = end = 0.0
    if not label or not 0 <= start < end:
        raise ValueError(f"event {text!r} is not of the form label@onset-offset (seconds)")
    return [start, end, label]


def _usable_file(
    row: Row, names: AudioNames, report: FolderReport, table: str, named: set[str]
) -> str | None:
    """The normal name of a row's file, or None when the row cannot be used, which is reported."""
    text = row.values.get("file", "").strip()
    file = normal_name(text)
    named.add(file)
    if row.problem is not None:
        kind = "quoting error" if row.quoting else "malformed row"
        report.reject(table, row.problem, kind, row.line)
    elif not text:
        report.reject(table, "empty file name", "malformed row", row.line)
    elif os.path.isabs(file) or file == ".." or file.startswith("../"):
        reason = f"{text!r} points outside the folder; copy or link the audio into it"
        report.reject(table, reason, "outside the folder", row.line)
    elif names.find(file) is None:
        reason = f"{text!r} does not exist in {names.folder}"
        report.reject(table, reason, "missing audio", row.line)
    else:
        return file
    return None


def _advice(report: FolderReport) -> str:
    reasons = "; ".join(str(item) for item in report.rejected[:3])
    return (
        f"{len(report.rejected)} left out, the first: {reasons}"
        if reasons
        else "the tables are empty"
    )
