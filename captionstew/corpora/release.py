"""Files of a release: finding and reading them, finding its audio, counting what is dropped."""

import csv
import gzip
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from captionstew.corpora.keys import IdentityError, name_stem, without_ending
from captionstew.data.audio import AUDIO_ENDINGS, UNREADABLE
from captionstew.data.captions import normalise_caption
from captionstew.data.tables.caption_table import write_rows

CHUNK = 2**22  # characters read at a time from a JSON list; longer than any record
csv.field_size_limit(2**24)


class ReleaseError(ValueError):
    """A release that is not there or not in its documented form; the message says what to do."""


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


class Report:
    """Counts what a reader read, kept and dropped, with the reason and the first examples of
    each.
    """

    def __init__(self) -> None:
        self.read: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.unprotected: list[str] = []  # what the leakage filter cannot know of these rows

    def drop(self, reason: str, example: object) -> None:
        self.dropped[reason] += 1
        if len(self.examples.setdefault(reason, [])) < 3:
            self.examples[reason].append(str(example)[:200])

    def row(self, caption: str | None, source: str, **columns) -> Iterator[dict]:
        """One table row, or none if the caption is empty; `yield from report.row(...)`."""
        self.read[source] += 1
        text = normalise_caption((caption or "").replace("\x00", ""))
        if not text:
            self.drop("empty caption", columns.get("audio_key"))
            return
        self.kept[source] += 1
        yield {"caption": text, "source": source, "offset": 0.0, "duration": None, **columns}

    @contextmanager
    def counting_bad_names(self, example: object):
        """A name without a key costs its row, never the corpus; it is counted like any other
        drop.
        """
        try:
            yield
        except IdentityError as error:
            self.drop("no identity", f"{example}: {error}")

    def as_dict(self) -> dict:
        return {
            "rows": dict(sorted(self.kept.items())),
            "dropped": {
                reason: {"rows": count, "examples": self.examples[reason]}
                for reason, count in sorted(self.dropped.items())
            },
            "unprotected": self.unprotected,
        }

    def __str__(self) -> str:
        lines = [f"  {source}: {count} captions" for source, count in sorted(self.kept.items())]
        lines += [
            f"  dropped {count}: {reason} (e.g. {self.examples[reason][0]})"
            for reason, count in sorted(self.dropped.items())
        ]
        return "\n".join([*lines, *(f"  not protected: {text}" for text in self.unprotected)])


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
    dropped.
    """
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding=encoding, newline="")
    return open(path, encoding=encoding, newline="")


def read_csv(
    path: Path,
    columns: Sequence[str],
    *,
    header: bool = True,
    encoding: str = "utf-8-sig",
    delimiter: str = ",",
    skip_blanks: bool = False,
) -> Iterator[dict[str, str]]:
    """Rows of a CSV as dictionaries. `columns`: those that the header must have, or the names if
    there is none.
    """
    try:
        with open_text(path, encoding) as stream:
            reader = csv.DictReader(
                stream,
                None if header else columns,
                delimiter=delimiter,
                skipinitialspace=skip_blanks,
                strict=True,
            )
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise ReleaseError(
                    f"{path}: column {missing[0]!r} is missing; it has {reader.fieldnames}"
                )
            for row in reader:
                if any(row[name] is None for name in columns):
                    raise ReleaseError(f"{path}: line {reader.line_num} has too few fields: {row}")
                yield row
    except UnicodeDecodeError as error:
        raise ReleaseError(
            f"{path}: not {encoding} text ({error}); save it in that encoding"
        ) from error
    except csv.Error as error:
        raise ReleaseError(f"{path}: not a well-formed CSV ({error})") from error


def read_jsonl(path: Path) -> Iterator[dict]:
    """Objects of a JSON-lines file, gzipped or not."""
    with open_text(path) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield _parse_json(path, line, number)


def read_json_list(path: Path, key: str | None = None) -> Iterator[dict]:
    """Objects of a JSON list, or of the list under `key` of an object, one at a time (files of many
    GB).
    """
    decoder = json.JSONDecoder()
    with open_text(path) as stream:
        buffer = stream.read(CHUNK)
        opening = re.match(
            rf'\s*\{{.*?"{key}"\s*:\s*\[' if key else r"\s*\[", buffer, flags=re.DOTALL
        )
        if opening is None:
            raise ReleaseError(
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
                    raise ReleaseError(
                        f"{path}: the list is cut off or not JSON ({error.msg})"
                    ) from error
                buffer += more
                continue
            yield record
            buffer = buffer[end:]


def _parse_json(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ReleaseError(
            f"{path}: line {line + error.lineno - 1}: not JSON ({error.msg})"
        ) from error


def read_parquet(path: Path, columns: Sequence[str]) -> Iterator[dict]:
    """Rows of a Parquet file as dictionaries, in batches of bounded size."""
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ReleaseError(f"{path}: not a Parquet file ({error})") from error
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise ReleaseError(
            f"{path}: column {missing[0]!r} is missing; it has {file.schema_arrow.names}"
        )
    for batch in file.iter_batches(columns=list(columns)):
        yield from batch.to_pylist()


def write_records(path: Path, schema: pa.Schema, rows: Iterator[dict]) -> int:
    """A small table other than captions (evaluation lists, segments)."""
    return write_rows(path, schema, rows)


class AudioFolder:
    """Finds a clip's file under any of the names in use, by one walk through the folder.

    A clip that is not there gets the path where it is expected, so that the list of missing files
    says what to get.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_stem: dict[str, str] = {}
        self._by_path: dict[str, str] = {}
        for root, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(files, key=lambda name: (name.lower().endswith(UNREADABLE), name)):
                if name.lower().endswith(AUDIO_ENDINGS):
                    path = os.path.relpath(os.path.join(root, name), folder)
                    self._by_stem.setdefault(name_stem(name), path)
                    self._by_path.setdefault(without_ending(path), path)

    def path(self, expected: str, *other_stems: str) -> str:
        """Absolute path of the file named like `expected` (relative, with ending) or like one of
        `other_stems`.
        """
        for stem in (name_stem(expected), *other_stems):
            if stem in self._by_stem:
                return str(self.folder / self._by_stem[stem])
        return str(self.folder / expected)

    def path_in_tree(self, expected: str, *other_paths: str) -> str:
        """The same for releases whose file names repeat in every folder: whole relative paths, any
        ending.
        """
        for path in (expected, *other_paths):
            found = self._by_path.get(without_ending(path))
            if found is not None:
                return str(self.folder / found)
        return str(self.folder / expected)
