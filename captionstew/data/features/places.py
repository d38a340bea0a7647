"""Where the features of each cut lie in a store: sorted arrays, mapped and not read, so that the
loading processes of a large store share them.

`places.npy`, (3, rows) uint64, lies beside the `index.jsonl` that it is made from: the sorted
hashes of (cut id, speed), the first frame of each, the number of frames; of a clip that could not
be read the hash of its id, the byte where its row begins, and FAILED.
"""

import json
import sys
from array import array
from pathlib import Path

import numpy as np

from captionstew.files import atomic_write
from captionstew.hashing import stable_hash

NAME = "places.npy"
FAILED = 2**64 - 1  # in place of a number of frames


class Places:
    """Random access by cut id and speed to the rows of a store's `index.jsonl`; makes the arrays
    where they are not there.
    """

    def __init__(self, folder: Path) -> None:
        self._index = folder / "index.jsonl"
        path = folder / NAME
        if not path.is_file():
            places = _read(self._index)
            try:
                with atomic_write(path) as file:
                    np.save(file, places)
            except OSError as error:
                print(f"{path}: kept in memory only ({error})", file=sys.stderr)
                self._set(places)
                return
        self._set(np.load(path, mmap_mode="r"))

    def _set(self, places: np.ndarray) -> None:
        self._hashes, self._starts, self._frames = places

    @property
    def num_stored(self) -> int:
        """Rows with features."""
        return int(np.count_nonzero(self._frames != FAILED))

    def find(self, cut_id: str, speed: float) -> tuple[int, int] | None:
        """(first frame, number of frames) of a cut at a speed; None if the store lacks it."""
        row = self._find(stable_hash(cut_id, speed))
        return None if row is None else (int(self._starts[row]), int(self._frames[row]))

    def failure(self, cut_id: str) -> tuple[str, str] | None:
        """(path, reason) of a cut that could not be read; None for others."""
        row = self._find(stable_hash(cut_id))
        if row is None:
            return None
        with open(self._index, "rb") as file:
            file.seek(int(self._starts[row]))
            failed = json.loads(file.readline())
        return failed["path"], failed["reason"]

    def _find(self, wanted: int) -> int | None:
        row = int(np.searchsorted(self._hashes, np.uint64(wanted)))
        return row if row < len(self._hashes) and int(self._hashes[row]) == wanted else None


def _read(index: Path) -> np.ndarray:
    """(3, rows) uint64. Raises ValueError where two rows have one hash."""
    hashes, starts, frames = array("Q"), array("Q"), array("Q")
    position = 0
    with open(index, "rb") as file:
        for line in file:
            row = json.loads(line)
            failed = "reason" in row
            name = (row["id"],) if failed else (row["id"], row["speed"])
            hashes.append(stable_hash(*name))
            starts.append(position if failed else row["start"])
            frames.append(FAILED if failed else row["frames"])
            position += len(line)
    places = np.array([hashes, starts, frames], np.uint64)
    places = places[:, np.argsort(places[0])]
    if np.any(places[0, 1:] == places[0, :-1]):
        raise ValueError(f"{index}: two rows have the same cut and speed, or the same hash of them")
    return places


def require_room(seconds: float, frame_bytes: int, frame_shift: float, max_gb: float) -> None:
    """Raises ValueError where features of `seconds` of audio are more than one file should hold."""
    gigabytes = seconds / frame_shift * frame_bytes / 1e9
    if gigabytes > max_gb:
        raise ValueError(
            f"features of {seconds / 3600:,.0f} h take {gigabytes:,.0f} GB, more than the"
            f" {max_gb:g} GB of one joined store: compute them on the fly (training without"
            " --feature-store), store a smaller subset, or raise --max-gb"
        )
