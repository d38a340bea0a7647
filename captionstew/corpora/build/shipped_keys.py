"""The keys of the public evaluation lists, as hashes that come with the code: who does not have a
list is protected from it all the same, and a list that is there must agree.

`shipped_keys.npz` holds `hashes` (N,) uint64, sorted; `lists` (N,) uint32, of each the lists that
have it, one bit each; `names` of the lists; `whole`, whether all clips of a list were at hand. The
program that writes it is `egs/captionstew/local/ship_keys.py`. From the hashes nobody reads a list:
they only tell whether a key that one has is on it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from captionstew.files import atomic_write

FILE = Path(__file__).with_name("shipped_keys.npz")
HASH_SQL = "md5_number_lower({key})"  # what `key_hashes` computes


def key_hashes(keys: Iterable[str]) -> np.ndarray:
    """(N,) uint64, sorted and distinct."""
    digests = b"".join(hashlib.md5(key.encode()).digest()[8:] for key in keys)
    return np.unique(np.frombuffer(digests, "<u8"))


def write_shipped(path: Path, lists: Mapping[str, Iterable[str]], whole: Iterable[str]) -> int:
    """Writes the keys of `lists`, of which `whole` have all their clips; returns how many."""
    hashes = {name: key_hashes(keys) for name, keys in lists.items()}
    everything = np.unique(np.concatenate(list(hashes.values())))
    bits = np.zeros(len(everything), np.uint32)
    for number, own in enumerate(hashes.values()):
        bits[np.searchsorted(everything, own)] |= np.uint32(1 << number)
    complete = set(whole)
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            hashes=everything,
            lists=bits,
            names=np.array(list(hashes)),
            whole=np.array([name in complete for name in hashes]),
        )
    return len(everything)


@cache
def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def shipped_hashes(name: str, path: Path | None = None) -> np.ndarray:
    """(N,) uint64: the hashes of a list `<corpus>:<split>`; none if it does not come with the
    code.
    """
    file = _read(path or FILE)
    names = list(file["names"]) if file else []
    if name not in names:
        return np.zeros(0, np.uint64)
    return file["hashes"][(file["lists"] >> np.uint32(names.index(name))) & 1 == 1]


def is_whole(name: str, path: Path | None = None) -> bool:
    """Whether all clips of the list come with the code."""
    file = _read(path or FILE)
    names = list(file["names"]) if file else []
    return name in names and bool(file["whole"][names.index(name)])


def disagreement(name: str, keys: Iterable[str]) -> str | None:
    """What is wrong with a list whose keys should include those that come with the code."""
    shipped = shipped_hashes(name)
    absent = len(np.setdiff1d(shipped, key_hashes(keys), assume_unique=True))
    if absent == 0:
        return None
    return f"{absent:,} of the {len(shipped):,} keys that come with CaptionStew are not in it"
