"""Vectors of frozen encoders on disk, named by everything that decides them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from captionstew.hashing import hash_of


def cached_vectors(folder: Path, settings: dict[str, Any], compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array stored for these settings, or compute()'s, stored for the next time.

    Args:
      settings: must change whenever the values would: content hash of the encoder, of the manifest, pooling, ...
    """
    path = folder / f"{hash_of(settings)}.npy"
    if path.is_file():
        return np.load(path)
    values = compute()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.partial")
    with open(temporary, "wb") as file:
        np.save(file, values)
    os.replace(temporary, path)
    return values
