"""Files of a release: finding and reading them, finding its audio, counting what is dropped."""

import csv
import io
import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from captionstew.corpora.damage import (
    Damaged,
    ReleaseError,
    delimiter_problem,
    open_bytes,
    reading,
)
from captionstew.corpora.keys import IdentityError
from captionstew.data.captions import has_hidden_characters, normalise_caption
from captionstew.data.tables.caption_table import write_rows

CHUNK = 2**22  # characters read at a time from a JSON list; longer than any record
csv.field_size_limit(2**24)


@dataclass(frozen=True)
class EvaluationList:
    """A list of recordings that may not be in pretraining.

    `clips` gives each of its clips by name, with the keys that protect it (without a name: keys
    of recordings that may be on it). `size`: how many clips it is known to have. `audio_splits`:
    the splits under which the corpus' reader finds their audio; none where it has no reader.
    """

    files: Sequence[Path]
    clips: Iterable[tuple[str | None, Sequence[str]]]
    size: int
    home: str
    audio_splits: Sequence[str] = ()


MAX_DROPPED_SHARE = 0.01  # of a file's rows


class _AudioFolder(Protocol):
    """What a report asks an audio folder."""

    def summary(self) -> dict[str, Any]: ...


class Report:
    """Counts what a reader read, kept, cleaned and dropped, with the reason and the first examples
    of each; knows how many rows of each file are damaged.
    """

    def __init__(self) -> None:
        self.read: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.cleaned: Counter[str] = Counter()  # captions that had hidden characters
        self.examples: dict[str, list[str]] = {}
        self.unprotected: list[str] = []  # what the leakage filter cannot know of these rows
        self.audio: list[_AudioFolder] = []  # where the reader looks for the clips
        self._place: tuple[Path, int] | None = None
        self._last: tuple[Path, int] | None = None  # the last damaged row
        self._damaged: Counter[Path] = Counter()  # rows
        self._first: dict[Path, str] = {}  # file -> its first damaged row
        self._hashes: dict[Path, array] = {}  # file -> of every row's content

    def at(self, path: Path, row: int, content: Hashable) -> None:
        """A reader is about to hand out, or to refuse, this row of a file."""
        self._place = path, row
        self._hashes.setdefault(path, array("q")).append(hash(content))

    def drop(self, reason: str, example: object) -> None:
        """Counts a row that the release means to be left out."""
        self.dropped[reason] += 1
        if len(self.examples.setdefault(reason, [])) < 3:
            self.examples[reason].append(str(example)[:200])

    def damage(self, reason: str, example: object) -> None:
        """Counts a row that cannot be used."""
        if self._place is None:
            self.drop(reason, example)
            return
        path, row = self._place
        self.drop(reason, f"{path.name}, row {row}: {example}")
        if self._place != self._last:  # a row may have several captions
            self._damaged[path] += 1
            self._last = self._place
        self._first.setdefault(path, f"row {row}: {reason}: {str(example)[:200]}")

    def row(self, caption: str | None, source: str, **columns) -> Iterator[dict]:
        """One table row, or none if the caption is empty; `yield from report.row(...)`."""
        self.read[source] += 1
        text = normalise_caption(caption) if isinstance(caption, str) else ""
        if not text:
            self.damage("empty caption", columns.get("audio_key"))
            return
        self.kept[source] += 1
        self.cleaned[source] += has_hidden_characters(caption or "")
        yield {"caption": text, "source": source, "offset": 0.0, "duration": None, **columns}

    @contextmanager
    def counting_bad_names(self, example: object):
        """A name without a key, or a number that is none, costs its row, never the corpus; it is
        counted like any other damage.
        """
        try:
            yield
        except IdentityError as error:
            self.damage("no identity", f"{example}: {error}")
        except (TypeError, ValueError) as error:
            self.damage("a value that cannot be read", f"{example}: {error}")

    def require_whole(self, max_share: float = MAX_DROPPED_SHARE) -> None:
        """Raises Damaged for a file of which more than `max_share` (rounded up to whole rows), or
        half, cannot be used, or is there twice.
        """
        for path, hashes in self._hashes.items():
            rows, damaged = len(hashes), self._damaged[path]
            if damaged > math.ceil(max_share * rows) or max_share < 0.5 <= damaged / rows:
                raise Damaged(
                    f"{path}: {damaged:,} of {rows:,} rows cannot be used, more than"
                    f" {100 * max_share:g} %; the first is {self._first[path]}"
                )
            repeated = rows - len(np.unique(np.frombuffer(hashes, np.int64)))
            if repeated > math.ceil(max_share * rows):
                raise Damaged(
                    f"{path}: {repeated:,} of {rows:,} rows are there twice, more than"
                    f" {100 * max_share:g} %; the first is the {_first_repeated(hashes)}th: was"
                    " the file pasted together?"
                )

    def as_dict(self) -> dict:
        return {
            "rows": dict(sorted(self.kept.items())),
            "cleaned": dict(sorted((+self.cleaned).items())),
            "dropped": {
                reason: {"rows": count, "examples": self.examples[reason]}
                for reason, count in sorted(self.dropped.items())
            },
            "unprotected": self.unprotected,
            "audio": self.audio_summary(),
        }

    def audio_summary(self) -> list[dict]:
        """Of every audio folder: files without a clip and clips without a file."""
        return [folder.summary() for folder in self.audio]

    def __str__(self) -> str:
        lines = [f"  {source}: {count} captions" for source, count in sorted(self.kept.items())]
        lines += [
            f"  {source}: {count} captions had hidden characters, which were removed"
            for source, count in sorted((+self.cleaned).items())
        ]
        lines += [
            f"  dropped {count}: {reason} (e.g. {self.examples[reason][0]})"
            for reason, count in sorted(self.dropped.items())
        ]
        lines += [f"  not protected: {text}" for text in self.unprotected]
        for summary in self.audio_summary():
            for what, there in (("files_without_clip", True), ("clips_without_file", False)):
                found = summary[what]
                if found["count"] and (there or summary["files"]):
                    examples = ", ".join(found["examples"])
                    lines.append(f"  {found['count']} audio {what.replace('_', ' ')}: {examples}")
        return "\n".join(lines)


def _first_repeated(hashes: array) -> int:
    """Number (from 1) of the first row that an earlier one equals."""
    _, first = np.unique(np.frombuffer(hashes, np.int64), return_index=True)
    repeated = np.ones(len(hashes), bool)
    repeated[first] = False
    return int(np.argmax(repeated)) + 1


def find_release_file(folder: Path, names: Sequence[str], home: str) -> Path:
    """The first of `names` (plain or .gz) below `folder`; otherwise one line saying what to get and
    where it goes.
    """
    found = present(folder, names)
    if found is not None:
        return found
    raise ReleaseError(
        f"{folder / names[0]} is missing; get {names[0]} from {home} and put it in {folder}"
    )


def present(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of `names` (plain or .gz) below `folder` that is there."""
    candidates = (folder / (name + end) for name in names for end in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def open_text(path: Path, encoding: str = "utf-8-sig") -> TextIO:
    """Open a text file, gzipped or not, for the csv module (line feeds untouched). A UTF-8 BOM is
    dropped. Raises Damaged for what is no list by how it begins.
    """
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, newline="")


def read_csv(
    path: Path,
    columns: Sequence[str],
    *,
    header: bool = True,
    encoding: str = "utf-8-sig",
    delimiter: str = ",",
    skip_blanks: bool = False,
    open_end: bool = False,
    report: Report | None = None,
) -> Iterator[dict[str, str]]:
    """Rows of a CSV as dictionaries. `columns`: those that the header must have, or the names if
    there is none. `open_end`: the last column takes what is left of a row, commas and all.

    Rows that do not fit the header are counted in `report`; without one, and for what makes the
    whole file unusable, raises Damaged.
    """
    with reading(path), open_text(path, encoding) as stream:
        reader = csv.DictReader(
            stream,
            None if header else columns,
            delimiter=delimiter,
            skipinitialspace=skip_blanks,
            strict=True,
        )
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            why = delimiter_problem(reader.fieldnames, delimiter) or f"it has {reader.fieldnames}"
            raise Damaged(f"{path}: column {missing[0]!r} is missing; {why}")
        row = None
        for row in _well_formed(reader, path):
            if open_end and None in row:
                last = list(row)[-2]
                row[last] = delimiter.join([row[last], *row.pop(None)])
            problem = _csv_problem(row, columns, header)
            if report is not None:
                report.at(path, reader.line_num, str(row))
            if problem is None:
                yield row
            elif report is not None:
                report.damage(problem, list(row.values()))
            else:
                raise Damaged(f"{path}: line {reader.line_num} has {problem}: {row}")
        if row is None:
            raise Damaged(f"{path}: has {'a header and ' if header else ''}no row")


def _well_formed(reader: csv.DictReader, path: Path) -> Iterator[dict]:
    try:
        yield from reader
    except csv.Error as error:
        raise Damaged(
            f"{path}: line {reader.reader.line_num}: not a well-formed CSV ({error})"
        ) from error


def _csv_problem(row: dict, columns: Sequence[str], header: bool) -> str | None:
    """Why a row cannot be used; None if it can."""
    if any(row[name] is None for name in columns):
        return "too few fields"
    if any(text.strip() for text in row.get(None, ())):
        return "too many fields (a text that holds commas needs quotes)"
    if header and all(row[name] == name for name in columns):
        return "the header once more"
    return None


def read_jsonl(
    path: Path, columns: Sequence[str] = (), report: Report | None = None
) -> Iterator[dict]:
    """Objects of a JSON-lines file, gzipped or not, that have `columns`.

    Others are counted in `report`; without one, and where the file is cut off, raises Damaged.
    """
    with reading(path), open_text(path) as stream:
        number = 0
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                if report is None or not line.endswith("\n"):
                    cut = "" if line.endswith("\n") else ", the file is cut off"
                    raise Damaged(f"{path}: line {number}: not JSON ({error.msg}){cut}") from error
                record = line
            if _usable(path, number, record, columns, report):
                yield record
        if number == 0:
            raise Damaged(f"{path}: has no record")


def _usable(
    path: Path, number: int, record: object, columns: Sequence[str], report: Report | None
) -> bool:
    """Whether a record has `columns`; one that has not is counted, or raises Damaged."""
    if isinstance(record, dict):
        missing = next((name for name in columns if record.get(name) is None), None)
        problem = None if missing is None else f"a record without {missing!r}"
    else:
        problem = "no record of names and values"
    if report is not None:
        report.at(path, number, str(record))
        if problem is not None:
            report.damage(problem, str(record)[:200])
    elif problem is not None:
        raise Damaged(f"{path}: record {number}: {problem}: {str(record)[:200]}")
    return problem is None


def read_json_list(
    path: Path, key: str | None = None, columns: Sequence[str] = (), report: Report | None = None
) -> Iterator[dict]:
    """Objects of a JSON list, or of the list under `key` of an object, one at a time (files of many
    GB); as `read_jsonl` otherwise.
    """
    number = 0
    for number, record in enumerate(_json_items(path, key), 1):
        if _usable(path, number, record, columns, report):
            yield record
    if number == 0:
        raise Damaged(f"{path}: has no record")


def _json_items(path: Path, key: str | None) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    with reading(path), open_text(path) as stream:
        buffer = stream.read(CHUNK)
        opening = re.match(
            rf'\s*\{{.*?"{key}"\s*:\s*\[' if key else r"\s*\[", buffer, flags=re.DOTALL
        )
        if opening is None:
            raise Damaged(
                f"{path}: expected a list of records" + (f" under {key!r}" if key else "")
            )
        buffer = buffer[opening.end() :]
        while True:
            buffer = buffer.lstrip(" \t\r\n,")
            try:
                if buffer.startswith("]"):
                    return
                record, end = decoder.raw_decode(buffer)
            except json.JSONDecodeError as error:
                more = stream.read(CHUNK)
                if not more:
                    raise Damaged(
                        f"{path}: the list is cut off or not JSON ({error.msg})"
                    ) from error
                buffer += more
                continue
            yield record
            buffer = buffer[end:]


def read_parquet(
    path: Path, columns: Sequence[str], report: Report | None = None
) -> Iterator[dict]:
    """Rows of a Parquet file as dictionaries, in batches of bounded size. Raises Damaged."""
    with open_bytes(path), reading(path):
        file = pq.ParquetFile(path)
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise Damaged(
                f"{path}: column {missing[0]!r} is missing; it has {file.schema_arrow.names}"
            )
        if file.metadata.num_rows == 0:
            raise Damaged(f"{path}: has no row")
        batches = file.iter_batches(columns=list(columns))
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            if report is not None:
                report.at(path, number, str(row))
            yield row


def write_records(path: Path, schema: pa.Schema, rows: Iterator[dict]) -> int:
    """A small table other than captions (evaluation lists, segments)."""
    return write_rows(path, schema, rows)
