"""Random access to a JSONL manifest by line number, through a table of byte offsets and durations.

The table lies beside the manifest (`<manifest>.index`: one JSON line padded to 512 bytes, then N+1
offsets as int64 and N durations as float64, little endian) and carries the manifest's size, time
stamp and sha256. It is used when size and time stamp match, or when the checksum does; otherwise it
is built anew, which also checks every row.
"""

import hashlib
import json
import mmap
import os
import sys
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from captionstew.data.manifests.rows import (
    ManifestError,
    check_row,
    check_unique,
    hash_id,
    resolve_paths,
)
from captionstew.files import atomic_write
from captionstew.hashing import sha256_of_file

if TYPE_CHECKING:
    from lhotse import CutSet, MonoCut

HEADER_BYTES = 512
VERSION = 1
BIG_MANIFEST = 50_000_000  # bytes; indexing more than this shows a progress bar


class IndexedCuts(Sequence):
    """A manifest, or a selection of its rows: length, random access, iteration, durations,
    checksum.

    `durations` (N,) float64 in seconds comes from the index: no row is read for it. Workers may
    hold copies: only the path and the selection are pickled.
    """

    def __init__(
        self,
        path: Path,
        sha256: str,
        offsets: np.ndarray,
        durations: np.ndarray,
        rows: np.ndarray | None,
    ):
        self.path = path
        self.manifest_sha256 = sha256
        self._offsets = offsets
        self._all_durations = durations
        self._rows = rows
        self._folder = str(path.parent.resolve())
        self._bytes = _map(path)
        self.durations = durations if rows is None else durations[rows]

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
    def total_duration(self) -> float:
        """Seconds of audio."""
        return float(self.durations.sum())

    def select(self, rows: Sequence[int] | np.ndarray) -> "IndexedCuts":
        """The cuts at these positions, in this order, as a view on the same manifest."""
        rows = np.asarray(rows, dtype=np.int64)
        if self._rows is not None:
            rows = self._rows[rows]
        return IndexedCuts(
            self.path, self.manifest_sha256, self._offsets, self._all_durations, rows
        )

    def __len__(self) -> int:
        return len(self.durations)

    def __getitem__(self, index: int) -> "MonoCut":
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
        line = self._bytes[int(self._offsets[row_number]) : int(self._offsets[row_number + 1])]
        return _parse(self.path, row_number + 1, line)

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


def write_index(manifest: Path, sha256: str, offsets: np.ndarray, durations: np.ndarray) -> None:
    """offsets (N+1,) bytes, durations (N,) seconds -> `<manifest>.index`, complete or not at
    all.
    """
    stat = manifest.stat()
    header = {"version": VERSION, "num_cuts": len(durations), "sha256": sha256}
    header |= {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    with atomic_write(index_path(manifest)) as file:
        file.write(json.dumps(header).encode().ljust(HEADER_BYTES - 1) + b"\n")
        file.write(offsets.astype("<i8").tobytes())
        file.write(durations.astype("<f8").tobytes())


def _read_index(manifest: Path) -> tuple[str, np.ndarray, np.ndarray] | None:
    """(sha256, offsets, durations) of a valid index, else None."""
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
        2 * count + 1
    )
    if not complete or stamp[0] != stat.st_size:
        return None
    if stamp[1] != stat.st_mtime_ns and sha256 != sha256_of_file(manifest):
        return None
    offsets = np.memmap(path, "<i8", "r", HEADER_BYTES, (count + 1,))
    durations = (
        np.memmap(path, "<f8", "r", HEADER_BYTES + 8 * (count + 1), (count,))
        if count
        else np.zeros(0)
    )
    return (
        sha256,
        offsets.view(np.ndarray),
        durations.view(np.ndarray),
    )  # single elements come faster than a memmap's


def _build_index(manifest: Path) -> tuple[str, np.ndarray, np.ndarray]:
    """Reads and checks every row; raises ManifestError with the line number of the first broken
    one.
    """
    offsets, durations, id_hashes = array("q", [0]), array("d"), array("Q")
    digest = hashlib.sha256()
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
            offsets.append(offsets[-1] + len(line))
            durations.append(row["duration"])
            id_hashes.append(hash_id(row["id"]))
            bar.update(len(line))
    check_unique(id_hashes, manifest)
    return digest.hexdigest(), np.asarray(offsets), np.asarray(durations)


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
