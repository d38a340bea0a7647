"""Random access to a JSONL manifest by line number, through a table of byte offsets and durations.

The table lies beside the manifest (`<manifest>.index`: one JSON line padded to 512 bytes, then N+1
offsets as int64, N durations as float64, and the hashes of N audio keys and of N fingerprints as
uint64, little endian) and carries the manifest's size, time stamp and sha256. It is used when size
and time stamp match, or when the checksum does; otherwise it is built anew, which also checks every
row.
"""

import hashlib
import json
import mmap
import os
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from captionstew.data.manifests.rows import (
    ManifestError,
    check_row,
    check_unique,
    resolve_paths,
)
from captionstew.files import atomic_write
from captionstew.hashing import sha256_of_file, stable_hash

if TYPE_CHECKING:
    from lhotse import CutSet, MonoCut

HEADER_BYTES = 512
VERSION = 2
NO_FINGERPRINT = 0  # stands for the hash of a fingerprint that a cut does not have
BIG_MANIFEST = 50_000_000  # bytes; indexing more than this shows a progress bar


@dataclass(frozen=True)
class Columns:
    """What the index holds of N cuts: byte offsets (N+1,) int64, durations (N,) float64 in seconds,
    and the 64-bit hashes (N,) of their audio keys and of the fingerprints of their audio.
    """

    offsets: np.ndarray
    durations: np.ndarray
    key_hashes: np.ndarray
    fingerprint_hashes: np.ndarray


@dataclass
class Rows:
    """Columns in the making, row by row."""

    offsets: array = field(default_factory=lambda: array("q", [0]))
    durations: array = field(default_factory=lambda: array("d"))
    id_hashes: array = field(default_factory=lambda: array("Q"))
    key_hashes: array = field(default_factory=lambda: array("Q"))
    fingerprint_hashes: array = field(default_factory=lambda: array("Q"))

    def add(self, row: dict, num_bytes: int) -> None:
        """Takes in a checked row and the length of its line."""
        custom = row["supervisions"][0]["custom"]
        fingerprint = custom.get("fingerprint")
        self.offsets.append(self.offsets[-1] + num_bytes)
        self.durations.append(row["duration"])
        self.id_hashes.append(stable_hash(row["id"]))
        self.key_hashes.append(stable_hash(custom["audio_key"]))
        self.fingerprint_hashes.append(stable_hash(fingerprint) if fingerprint else NO_FINGERPRINT)

    def columns(self, manifest: Path) -> Columns:
        """Raises ManifestError that names two lines with the same cut id."""
        check_unique(self.id_hashes, manifest)
        names = ("offsets", "durations", "key_hashes", "fingerprint_hashes")
        return Columns(*(np.asarray(getattr(self, name)) for name in names))


class IndexedCuts(Sequence):
    """A manifest, or a selection of its rows: length, random access, iteration, durations,
    checksum.

    `durations` (N,) float64 in seconds, `key_hashes` and `fingerprint_hashes` (N,) uint64 come from
    the index: no row is read for them. Workers may hold copies: only the path and the selection are
    pickled.
    """

    def __init__(self, path: Path, sha256: str, columns: Columns, rows: np.ndarray | None):
        self.path = path
        self.manifest_sha256 = sha256
        self._columns = columns
        self._rows = rows
        self._folder = str(path.parent.resolve())
        self._bytes = _map(path)
        self.durations = columns.durations if rows is None else columns.durations[rows]

    @classmethod
    def open(cls, path: str | os.PathLike) -> "IndexedCuts":
        """Raises ManifestError when the file is missing or a row is broken (with its line
        number).
        """
        path = Path(path)
        if not path.is_file():
            raise ManifestError(f"{path}: manifest does not exist")
        found = _read_index(path)
        if found is None:
            found = _build_index(path)
            try:
                write_index(path, *found)
            except OSError as error:
                print(f"{path}: the index is kept in memory only ({error})", file=sys.stderr)
        return cls(path, *found, rows=None)

    @property
    def sha256(self) -> str:
        """Checksum of the manifest, or of the manifest and the selected rows."""
        if self._rows is None:
            return self.manifest_sha256
        return hashlib.sha256(self.manifest_sha256.encode() + self._rows.tobytes()).hexdigest()

    @property
    def key_hashes(self) -> np.ndarray:
        """Hashes of the audio keys (N,) uint64."""
        hashes = self._columns.key_hashes
        return hashes if self._rows is None else hashes[self._rows]

    @property
    def fingerprint_hashes(self) -> np.ndarray:
        """Hashes of the fingerprints (N,) uint64, NO_FINGERPRINT where a cut has none."""
        hashes = self._columns.fingerprint_hashes
        return hashes if self._rows is None else hashes[self._rows]

    @property
    def total_duration(self) -> float:
        """Seconds of audio."""
        return float(self.durations.sum())

    def select(self, rows: Sequence[int] | np.ndarray) -> "IndexedCuts":
        """The cuts at these positions, in this order, as a view on the same manifest."""
        chosen = np.asarray(rows, dtype=np.int64)
        if self._rows is not None:
            chosen = self._rows[chosen]
        return IndexedCuts(self.path, self.manifest_sha256, self._columns, chosen)

    def __len__(self) -> int:
        return len(self.durations)

    # A slice is `select`, which makes a view.
    def __getitem__(self, index: int) -> "MonoCut":  # type: ignore[override]
        from lhotse.serialization import deserialize_item

        row = self._row(index)
        resolve_paths(row, self._folder)
        return deserialize_item(row)

    def custom(self, index: int) -> dict:
        """The supervision's `custom` of one cut (captions, labels, ...), in a third of the time
        that the cut takes.
        """
        return self._row(index)["supervisions"][0]["custom"]

    def _row(self, index: int) -> dict:
        if not -len(self) <= index < len(self):
            raise IndexError(f"cut {index} of {len(self)} in {self.path}")
        index = index % len(self)
        row_number = index if self._rows is None else int(self._rows[index])
        start, end = self._columns.offsets[row_number : row_number + 2].tolist()
        return _parse(self.path, row_number + 1, self._bytes[start:end])

    def read(self, positions: Sequence[int]) -> "CutSet":
        """The cuts at these positions, read into memory."""
        from lhotse import CutSet

        return CutSet.from_cuts([self[position] for position in positions])

    def __iter__(self) -> Iterator["MonoCut"]:
        return (self[index] for index in range(len(self)))

    def __reduce__(self):
        return _reopen, (self.path, self._rows)

    def __repr__(self) -> str:
        return (
            f"IndexedCuts({str(self.path)!r}, {len(self)} cuts, {self.total_duration / 3600:.2f} h)"
        )


def _reopen(path: Path, rows: np.ndarray | None) -> IndexedCuts:
    cuts = IndexedCuts.open(path)
    return cuts if rows is None else cuts.select(rows)


def index_path(manifest: str | os.PathLike) -> Path:
    manifest = Path(manifest)
    return manifest.with_name(manifest.name + ".index")


def write_index(manifest: Path, sha256: str, columns: Columns) -> None:
    """Writes `<manifest>.index`, complete or not at all."""
    stat = manifest.stat()
    header = {"version": VERSION, "num_cuts": len(columns.durations), "sha256": sha256}
    header |= {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    with atomic_write(index_path(manifest)) as file:
        file.write(json.dumps(header).encode().ljust(HEADER_BYTES - 1) + b"\n")
        file.write(columns.offsets.astype("<i8").tobytes())
        file.write(columns.durations.astype("<f8").tobytes())
        file.write(columns.key_hashes.astype("<u8").tobytes())
        file.write(columns.fingerprint_hashes.astype("<u8").tobytes())


def _read_index(manifest: Path) -> tuple[str, Columns] | None:
    """(sha256, columns) of a valid index, else None."""
    path = index_path(manifest)
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        try:
            header = json.loads(file.read(HEADER_BYTES))
            count, sha256 = header["num_cuts"], header["sha256"]
            stamp = (header["size"], header["mtime_ns"])
        except (ValueError, KeyError, TypeError):
            return None
    stat = manifest.stat()
    complete = header.get("version") == VERSION and path.stat().st_size == HEADER_BYTES + 8 * (
        4 * count + 1
    )
    if not complete or stamp[0] != stat.st_size:
        return None
    if stamp[1] != stat.st_mtime_ns and sha256 != sha256_of_file(manifest):
        return None
    # as plain arrays: single elements come faster than a memmap's
    table = np.memmap(path, "<i8", "r", HEADER_BYTES, (4 * count + 1,)).view(np.ndarray)
    offsets, rest = table[: count + 1], table[count + 1 :].reshape(3, count)
    columns = Columns(offsets, rest[0].view("<f8"), rest[1].view("<u8"), rest[2].view("<u8"))
    return sha256, columns


def _build_index(manifest: Path) -> tuple[str, Columns]:
    """Reads and checks every row; raises ManifestError with the line number of the first broken
    one.
    """
    rows, digest = Rows(), hashlib.sha256()
    size = manifest.stat().st_size
    hide = size < BIG_MANIFEST
    with (
        open(manifest, "rb") as file,
        tqdm(
            desc=f"index {manifest.name}", total=size, unit="B", unit_scale=True, disable=hide
        ) as bar,
    ):
        for number, line in enumerate(file, start=1):
            row = _parse(manifest, number, line)
            try:
                check_row(row)
            except ManifestError as error:
                raise ManifestError(f"{manifest}: line {number}: {error}") from None
            digest.update(line)
            rows.add(row, len(line))
            bar.update(len(line))
    return digest.hexdigest(), rows.columns(manifest)


def _parse(manifest: Path, number: int, line: bytes) -> dict:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ManifestError(
            f"{manifest}: line {number} is not JSON ({error}); was the file cut off?"
        ) from None


def _map(path: Path) -> mmap.mmap | bytes:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
