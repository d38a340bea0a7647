"""Rows of a table that a person wrote: any case of the header's words, quotes that may not close.

A quote that is opened and not closed swallows the lines after it, and a clip would get the captions
of others. Where the text between two quotes runs over a line that begins with another audio file's
name, or does not end, the row is reported and reading goes on at its next line.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from captionstew.errors import UserError
from captionstew.files import bounded_lines

# Columns with a meaning of their own are known in any case; all others keep theirs.
KNOWN = (
    "file", "caption", "label", "labels", "events", "split", "fold", "speaker", "licence",
    "license", "question", "answer", "choices", "task", "description", "domain",
)  # fmt: skip


class FolderError(UserError):
    """A folder that cannot be read at all; the message names the file and says what to do."""


@dataclass(frozen=True)
class Row:
    """A row by column, and the line that it begins on; `problem` where it cannot be read, which may
    be one of `quoting`.
    """

    line: int
    values: dict
    problem: str | None = None
    quoting: bool = False


def read_rows(
    path: Path, required: tuple[str, ...], reserved: tuple[str, ...], is_file: Callable[[str], bool]
) -> Iterator[Row]:
    """The rows of a CSV file in order; `is_file` tells whether a text names an audio file.

    Raises FolderError for another encoding, a missing, repeated or reserved column.
    """
    lines = list(io.StringIO(_decoded(path), newline=""))
    columns = _header(path, lines, required, reserved)
    start = 1
    while start < len(lines):
        reader = csv.reader(io.StringIO("".join(lines[start:]), newline=""), strict=True)
        begun = 0  # line of this reader's text that the next row begins on
        try:
            for fields in reader:
                swallowed = _swallowed(lines[start + begun : start + reader.line_num], is_file)
                if swallowed:
                    break
                if fields:
                    yield _row(columns, fields, start + begun + 1)
                begun = reader.line_num
            else:
                return
        except csv.Error as error:
            swallowed = _swallowed(lines[start + begun :], is_file)
            problem = f"{error}; check the quotes"
        if swallowed:
            problem = (
                f"its quotation mark is not closed before the row of {swallowed!r}; close it, or"
                " write quotation marks inside a text twice"
            )
        about = {"file": lines[start + begun].partition(",")[0]}
        yield Row(start + begun + 1, dict.fromkeys(columns, "") | about, problem, quoting=True)
        start += begun + 1


def _decoded(path: Path) -> str:
    with open(path, "rb") as file:
        content = b"".join(bounded_lines(file, path))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FolderError(
            f"{path}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}); save the table as"
            " UTF-8"
        ) from None


def _header(
    path: Path, lines: list[str], required: tuple[str, ...], reserved: tuple[str, ...]
) -> list[str]:
    """The columns' names."""
    reader = csv.reader(io.StringIO("".join(lines[:1]), newline=""))
    try:
        names = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise FolderError(f"{path}, line 1: not a table's header ({error})") from error
    columns = [name.lower() if name.lower() in KNOWN else name for name in names]
    missing = [name for name in required if name not in columns]
    if missing:
        found = ", ".join(names) or "none"
        raise FolderError(
            f"{path}: column {', '.join(missing)} is missing (found: {found}); add it to line 1"
        )
    repeated = [name for name, count in Counter(columns).items() if count > 1 or name in reserved]
    if repeated:
        raise FolderError(
            f"{path}: column {', '.join(repeated)} is reserved or repeated; rename it in line 1"
        )
    return columns


def _swallowed(lines: list[str], is_file: Callable[[str], bool]) -> str | None:
    """The audio file that a later line of one row names in its first field, if any does."""
    names = (line.partition(",")[0].strip().strip('"') for line in lines[1:])
    return next((name for name in names if name and is_file(name)), None)


def _row(columns: list[str], fields: list[str], line: int) -> Row:
    if len(fields) > len(columns):
        problem = "more fields than columns; put texts that hold commas into double quotes"
    elif len(fields) < len(columns):
        problem = "fewer fields than columns"
    else:
        problem = None
    return Row(line, dict(zip(columns, fields)), problem)
