"""Clip vectors computed elsewhere: how a system takes part whose code cannot be installed here.

    .parquet   columns `id` (string) and `vector` (list of D numbers), one row per clip
    .npz       arrays `ids` (N,) of strings and `vectors` (N, D)
    .npy       an array (N, D), with the ids line by line in a .txt file of the same name

An id is the id of a cut in the manifest that is evaluated. There are no frames, so neither
attention pooling nor detection can use such a file. `captionstew embed` writes these formats, with
the names of the files as ids.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from captionstew.files import atomic_path, atomic_write, write_text
from captionstew.hashing import sha256_of_file


@dataclass(frozen=True)
class StoredEmbeddings:
    """Vectors by clip id. `description` has the entries of FrozenEncoder's."""

    vectors: np.ndarray  # (N, D) float32
    ids: tuple[str, ...]
    description: dict[str, Any]

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    def select(self, cut_ids: Sequence[str]) -> np.ndarray:
        """-> (n, D) float32, in the order of `cut_ids`. Raises ValueError that names clips without
        a vector.
        """
        rows = {clip: row for row, clip in enumerate(self.ids)}
        if missing := [clip for clip in cut_ids if clip not in rows]:
            names = ", ".join(missing[:3])
            raise ValueError(
                f"{self.description['path']}: no vector for {len(missing)} of {len(cut_ids)} clips"
                f" ({names})"
            )
        return self.vectors[[rows[clip] for clip in cut_ids]]


def load_embeddings(path: str | Path) -> StoredEmbeddings:
    """Raises ValueError that names the file where it is not as described above, or holds NaN or an
    id twice.
    """
    path = Path(path)
    check_format(path)
    ids, vectors = {".npz": _read_npz, ".npy": _read_npy, ".parquet": _read_parquet}[path.suffix](
        path
    )
    if vectors.ndim != 2 or len(ids) != len(vectors) or not len(ids):
        raise ValueError(
            f"{path}: {len(ids)} ids, vectors of shape {vectors.shape}; expected N >= 1 ids and"
            " (N, D)"
        )
    if not np.isfinite(vectors).all():
        raise ValueError(
            f"{path}: {int((~np.isfinite(vectors)).any(axis=1).sum())} vectors hold NaN or infinite"
            " values"
        )
    if len(set(ids)) < len(ids):
        twice = next(clip for clip in ids if ids.count(clip) > 1)
        raise ValueError(f"{path}: id {twice!r} occurs more than once")
    description = {
        "path": str(path),
        "sha256": sha256_of_file(path),
        "preset": path.stem,
        "pretraining": "unknown",
        "layer": "clip vectors computed elsewhere",
        "preprocessing": "unknown",
        "sampling_rate": None,
        "frame_rate": None,
        "dim": vectors.shape[1],
    }
    return StoredEmbeddings(vectors.astype(np.float32), tuple(ids), description)


def save_embeddings(path: str | Path, ids: Sequence[str], vectors: np.ndarray) -> None:
    """Writes (N, D) vectors of N clips; the suffix chooses the format. Raises ValueError for
    another suffix.
    """
    path = Path(path)
    check_format(path)
    vectors = np.asarray(vectors, dtype=np.float32)
    if path.suffix == ".npz":
        with atomic_write(path) as file:
            np.savez(file, ids=np.array(ids, dtype=np.str_), vectors=vectors)
    elif path.suffix == ".npy":
        with atomic_write(path) as file:
            np.save(file, vectors)
        write_text(path.with_suffix(".txt"), "".join(f"{clip}\n" for clip in ids))
    else:
        flat = pa.array(vectors.ravel())
        table = {
            "id": pa.array(list(ids), pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
        with atomic_path(path) as partial:
            pq.write_table(pa.table(table), partial)


def check_format(path: Path) -> None:
    """Raises ValueError for a suffix that no format has."""
    if path.suffix not in (".parquet", ".npz", ".npy"):
        raise ValueError(f"{path}: embeddings are kept as .parquet, .npz or .npy")


def _read_npy(path: Path) -> tuple[list[str], np.ndarray]:
    try:
        vectors = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path}: not an .npy with vectors ({error})") from error
    return path.with_suffix(".txt").read_text(encoding="utf-8").splitlines(), vectors


def _read_npz(path: Path) -> tuple[list[str], np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return content["ids"].astype(np.str_).tolist(), content["vectors"]
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: not an .npz with arrays `ids` (strings) and `vectors` ({error})"
        ) from error


def _read_parquet(path: Path) -> tuple[list[str], np.ndarray]:
    try:
        table = pq.read_table(path, columns=["id", "vector"])
    except (pa.ArrowInvalid, KeyError) as error:
        raise ValueError(
            f"{path}: not a parquet file with columns id, vector ({str(error).splitlines()[0]})"
        ) from error
    ids = table["id"].cast(pa.string()).to_pylist()
    vectors = table["vector"].combine_chunks()
    widths = (
        set(vectors.value_lengths().to_pylist())
        if not pa.types.is_fixed_size_list(vectors.type)
        else set()
    )
    if len(widths) > 1 or None in widths:
        raise ValueError(f"{path}: vectors have different lengths: {sorted(map(str, widths))[:5]}")
    values = vectors.flatten().to_numpy(zero_copy_only=False)
    return ids, values.reshape(len(ids), -1)
