"""A memory of what a model was trained on: 64-bit hashes of the audio keys of its clips, and of the
fingerprints of their decoded audio.

    trained_clips-<first 12 digits of its sha256>.npz      beside the checkpoints
        keys, fingerprints    (K,), (F,) uint64, sorted, each once
        complete              False where something was trained on earlier that left no memory

A checkpoint's config names the file (`trained_clips`: its name and sha256), so whoever copies the
checkpoint copies the file beside it; its name never clashes, as it is made of the content. A file
that is not there means that what was trained on is unknown, never that it was nothing.
"""

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from captionstew.data.manifests.index import NO_FINGERPRINT
from captionstew.errors import UserError
from captionstew.files import atomic_write

ENTRY = "trained_clips"  # of a checkpoint's config and of an encoder's description
UNTRAINED = "none"  # the `pretraining` of encoders without any


class HashedClips(Protocol):
    """N clips by their hashes (N,) uint64, as IndexedCuts has them."""

    @property
    def key_hashes(self) -> np.ndarray: ...

    @property
    def fingerprint_hashes(self) -> np.ndarray: ...


@dataclass(frozen=True)
class TrainedClips:
    """Sorted hashes of keys (K,) and fingerprints (F,), uint64; `complete` unless there were more
    clips that nobody knows.
    """

    keys: np.ndarray
    fingerprints: np.ndarray
    complete: bool = True

    @classmethod
    def of(cls, clips: HashedClips) -> "TrainedClips":
        """The memory of having been trained on these."""
        prints = clips.fingerprint_hashes
        return cls(_sorted(clips.key_hashes), _sorted(prints[prints != NO_FINGERPRINT]))

    def joined(self, earlier: "TrainedClips | None") -> "TrainedClips":
        """Both memories in one; None is one that is unknown."""
        if earlier is None:
            return TrainedClips(self.keys, self.fingerprints, complete=False)
        return TrainedClips(
            _sorted(np.concatenate([self.keys, earlier.keys])),
            _sorted(np.concatenate([self.fingerprints, earlier.fingerprints])),
            self.complete and earlier.complete,
        )

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256(self.keys.astype("<u8").tobytes())
        digest.update(self.fingerprints.astype("<u8").tobytes())
        digest.update(str(self.complete).encode())
        return digest.hexdigest()

    def write(self, folder: Path) -> dict[str, str]:
        """Writes the file into `folder`; returns what a checkpoint's config says of it."""
        sha256 = self.sha256
        name = f"trained_clips-{sha256[:12]}.npz"
        with atomic_write(folder / name) as file:
            np.savez(file, keys=self.keys, fingerprints=self.fingerprints, complete=self.complete)
        return {"file": name, "sha256": sha256}

    def count(self, clips: HashedClips) -> dict[str, Any]:
        """How many of N clips were trained on: `trained` by either, `by_key`, `by_audio` (None
        where one side has no fingerprint at all), `clips` N, and whether the memory is `complete`.
        """
        by_key = _among(clips.key_hashes, self.keys)
        by_audio = _among(clips.fingerprint_hashes, self.fingerprints)
        silent = len(self.keys) > 0 and len(self.fingerprints) == 0
        comparable = not silent and (clips.fingerprint_hashes != NO_FINGERPRINT).any()
        return {
            "trained": int((by_key | by_audio).sum()),
            "by_key": int(by_key.sum()),
            "by_audio": int(by_audio.sum()) if comparable else None,
            "clips": len(by_key),
            "complete": self.complete,
        }


def read_trained_clips(folder: Path, reference: Mapping[str, str] | None) -> TrainedClips | None:
    """The memory that a checkpoint's config refers to, from the folder of the checkpoint; None
    where there is no reference or no such file.

    Raises:
      UserError: the file is damaged or another one.
    """
    if reference is None or not (path := folder / reference["file"]).is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as content:
            found = TrainedClips(
                content["keys"], content["fingerprints"], bool(content["complete"])
            )
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged ({error}); {_ADVICE}") from error
    if found.sha256 != reference["sha256"]:
        raise UserError(f"{path}: not the file that training wrote; {_ADVICE}")
    return found


def memory_of_encoder(description: Mapping[str, Any]) -> TrainedClips | None:
    """What the encoder of this description (path, pretraining, trained_clips) was trained on; None
    if that is unknown.
    """
    if description.get("pretraining") == UNTRAINED:
        nothing = np.zeros(0, np.uint64)
        return TrainedClips(nothing, nothing)
    return read_trained_clips(_folder_of(description), description.get(ENTRY))


def copy_trained_clips(source: Path, reference: Mapping[str, str] | None, target: Path) -> None:
    """Puts the memory beside a copy of its checkpoint, from the folder `source` to `target`; says
    so where it is missing.
    """
    found = read_trained_clips(source, reference)
    if found is None:
        name = ENTRY if reference is None else reference["file"]
        print(f"{source}: no {name} here: what was trained on is unknown")
    elif source.resolve() != target.resolve():
        found.write(target)


_ADVICE = "copy it again, or remove it: what was trained on is then unknown"


def _sorted(hashes: np.ndarray) -> np.ndarray:
    """(N,) -> (K,) each once; np.unique takes ten times as long."""
    ordered = np.sort(hashes)
    first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def _among(hashes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N,), sorted (K,) -> (N,) bool"""
    if len(known) == 0:
        return np.zeros(len(hashes), bool)
    return known[np.searchsorted(known, hashes).clip(max=len(known) - 1)] == hashes


def _folder_of(description: Mapping[str, Any]) -> Path:
    path = Path(description["path"])
    return path if path.is_dir() else path.parent
