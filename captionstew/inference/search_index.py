"""Unit vectors of audio files on disk, to be searched by a text's vector. F files, E joint
embedding size.
"""

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from captionstew.files import atomic_write


@dataclass(frozen=True)
class SearchIndex:
    """Audio vectors of files as they were when they were read.

    Attributes:
      files: F paths, as they were named.
      vectors: (F, E) float32 of length 1.
      stamps: (F, 2) int64, size in bytes and time of change in nanoseconds: a file with others is
          embedded again.
      model: sha256 of the checkpoint; vectors of different models cannot be compared.
    """

    files: tuple[str, ...]
    vectors: np.ndarray
    stamps: np.ndarray
    model: str

    def nearest(self, query: np.ndarray, k: int) -> list[tuple[str, float]]:
        """(E,) of length 1 -> at most k (file, cosine), the best first"""
        scores = self.vectors @ query
        k = min(k, len(scores))
        best = np.argpartition(-scores, k - 1)[:k] if k else np.zeros(0, dtype=np.int64)
        best = best[np.lexsort((best, -scores[best]))]
        return [(self.files[row], float(scores[row])) for row in best]

    def save(self, path: str | Path) -> None:
        """Writes an .npz file, whole or not at all."""
        with atomic_write(path) as file:
            np.savez(
                file,
                files=np.array(self.files, dtype=np.str_),
                vectors=self.vectors,
                stamps=self.stamps,
                model=np.array(self.model),
            )


def load_index(path: str | Path) -> SearchIndex:
    """Raises ValueError where the file is no index."""
    try:
        with np.load(path, allow_pickle=False) as content:
            files = tuple(content["files"].tolist())
            index = SearchIndex(files, content["vectors"], content["stamps"], str(content["model"]))
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: not an index of captionstew search ({error}); remove it to build it anew"
        ) from error
    if index.vectors.ndim != 2 or not len(files) == len(index.vectors) == len(index.stamps):
        raise ValueError(
            f"{path}: {len(files)} files, vectors {index.vectors.shape}; remove it to build it anew"
        )
    return index


def stamp(file: str) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds; (-1, -1) where there is no such file."""
    try:
        status = os.stat(file)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
