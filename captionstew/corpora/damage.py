"""What is wrong with a file of a release, said in one line."""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa


class ReleaseError(ValueError):
    """A release that is not there or not in its documented form; the message says what to do."""


class Damaged(ReleaseError):
    """A file that has to be downloaded again; who knows from where adds it to the message."""


# What servers and tools leave in the place of a list, by how a file begins.
FOREIGN = (
    (rb"<(!doctype\s+html|html|head|body)", "an HTML page"),
    (rb"version https://git-lfs", "a Git LFS pointer (`git lfs pull` fetches the file)"),
    (rb"<\?xml|<error", "an XML message"),
    (rb"pk\x03\x04", "a zip archive"),
)
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.")


def open_bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """The content of a file, gzipped or not. Raises Damaged for an empty one, or one that is
    something else by how it begins.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    is_gzip = start.startswith(b"\x1f\x8b")
    if path.suffix == ".gz" and is_gzip:
        with reading(path), gzip.open(path, "rb") as stream:
            start = stream.read(512)
    refuse_foreign(path, start)
    if path.suffix == ".gz" and not is_gzip:
        raise Damaged(f"{path}: is not gzip data, though its name says so")
    if is_gzip and path.suffix != ".gz":
        raise Damaged(f"{path}: is gzip data; call it {path.name}.gz")
    return gzip.open(path, "rb") if is_gzip else open(path, "rb")


def refuse_foreign(path: Path, start: bytes) -> None:
    """Raises Damaged where a file that begins like this is no list."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not text:
        raise Damaged(f"{path}: is empty")
    for form, kind in FOREIGN:
        if re.match(form, text):
            raise Damaged(f"{path}: row 1 looks like {kind}, not like the release's list")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Errors of the block's reading as Damaged, with the file and, for text, the line."""
    try:
        yield
    except UnicodeDecodeError as error:
        line = line_of_bad_text(path, error.encoding)
        raise Damaged(
            f"{path}: line {line}: not {error.encoding} text ({error.reason}); save it in that"
            " encoding"
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Damaged(f"{path}: cut off: the compressed data ends early ({error})") from error
    except csv.Error as error:
        raise Damaged(f"{path}: not a well-formed CSV ({error})") from error
    except pa.ArrowInvalid as error:
        raise Damaged(f"{path}: not a whole Parquet file ({first_line(error)})") from error


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def line_of_bad_text(path: Path, encoding: str) -> int:
    """The first line (from 1) that is no text of this encoding; 0 if only the whole is not."""
    with open_bytes(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError:
                return number
    return 0


def delimiter_problem(names: Sequence[str] | None, delimiter: str) -> str | None:
    """What a header that is one field tells of the delimiter."""
    if names is None or len(names) != 1:
        return None
    others = [x for x in (";", "\t", ",", "|") if x != delimiter and x in names[0]]
    return f"fields are separated by {others[0]!r}, not by {delimiter!r}" if others else None


def require_shards(files: Sequence[Path]) -> None:
    """Raises Damaged where names like `train-00000-of-00002.parquet` say that others belong to
    them.
    """
    shards = {file: match for file in files if (match := SHARD.search(file.name))}
    for file, match in shards.items():
        there = {int(other[1]) for other in shards.values() if other[2] == match[2]}
        absent = [number for number in range(int(match[2])) if number not in there]
        if absent:
            name = file.name.replace(f"-{match[1]}-", f"-{absent[0]:05d}-")
            raise Damaged(
                f"{file.parent / name}: {len(absent)} of the {int(match[2])} files of this split"
                " are missing, this one is the first"
            )
