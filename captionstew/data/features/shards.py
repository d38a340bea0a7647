"""The feature store of a large manifest, computed in shares by processes or a Dask cluster.

The result is byte for byte the store that `store.build_feature_store` makes in one process.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from captionstew.data.features.fbank import FbankConfig
from captionstew.data.features.places import Places
from captionstew.data.features.store import (
    MAX_GB,
    FeatureStore,
    _write_store,
    require_store_room,
)
from captionstew.data.manifests.index import IndexedCuts
from captionstew.files import atomic_folder
from captionstew.hashing import stable_hash
from captionstew.locks import one_writer
from captionstew.parallel import run_shares


@dataclass(frozen=True)
class _Share:
    cuts: IndexedCuts
    folder: Path
    config: FbankConfig
    speeds: tuple[float, ...]
    dtype: str


def build_feature_store_in_shares(
    root: str | os.PathLike,
    cuts: IndexedCuts,
    config: FbankConfig,
    speeds: Sequence[float] = (1.0,),
    dtype: str = "float32",
    *,
    cuts_per_share: int = 500,
    num_jobs: int = 1,
    dask_scheduler: str | None = None,
    max_gb: float = MAX_GB,
) -> FeatureStore:
    """Like `build_feature_store`; an interrupted computation goes on where it stopped."""
    speeds = tuple(sorted(set(speeds)))
    folder = Path(root) / f"fbank-{stable_hash(config.hash(), cuts.sha256, *speeds, dtype):016x}"
    if not (folder / "store.json").is_file():
        require_store_room(cuts, config, speeds, dtype, max_gb)
    with one_writer(folder.parent, wait=True):
        _compute_in_shares(
            folder, cuts, config, speeds, dtype, cuts_per_share, num_jobs, dask_scheduler
        )
    return FeatureStore(folder)


def _compute_in_shares(
    folder: Path,
    cuts: IndexedCuts,
    config: FbankConfig,
    speeds: tuple[float, ...],
    dtype: str,
    cuts_per_share: int,
    num_jobs: int,
    dask_scheduler: str | None,
) -> None:
    parts = folder.with_name(f".{folder.name}.shares-of-{cuts_per_share}")
    if not (folder / "store.json").is_file():
        parts.mkdir(parents=True, exist_ok=True)
        shares = []
        for start in range(0, len(cuts), cuts_per_share):
            own = cuts.select(range(start, min(start + cuts_per_share, len(cuts))))
            shares.append(_Share(own, parts / f"{start:09d}", config, speeds, dtype))
        todo = [share for share in shares if not share.folder.is_dir()]
        run_shares(
            _write_share, todo, num_jobs=num_jobs, dask_scheduler=dask_scheduler, title="features"
        )
        _join([share.folder for share in shares], folder, cuts.manifest_sha256)
    shutil.rmtree(
        parts, ignore_errors=True
    )  # also those of a computation that was killed just here


def _write_share(share: _Share) -> None:
    """The folder appears under its name when it is complete; two workers may do the same share."""
    torch.set_num_threads(1)
    with atomic_folder(share.folder) as temporary:
        _write_store(temporary, share.cuts, share.config, share.speeds, share.dtype, 1, False)


def _join(parts: Sequence[Path], folder: Path, manifest_sha256: str) -> None:
    with atomic_folder(folder) as temporary:
        _join_into(temporary, parts, manifest_sha256)


def _join_into(temporary: Path, parts: Sequence[Path], manifest_sha256: str) -> None:
    start = 0
    with (
        open(temporary / "features.bin", "wb") as data,
        open(temporary / "index.jsonl", "w", encoding="utf-8") as index,
    ):
        for part in parts:
            about = json.loads((part / "store.json").read_text(encoding="utf-8"))
            with open(part / "features.bin", "rb") as frames:
                shutil.copyfileobj(frames, data, 1 << 24)
            with open(part / "index.jsonl", encoding="utf-8") as rows:
                for row in map(json.loads, rows):
                    index.write(
                        json.dumps(row | {"start": row["start"] + start} if "start" in row else row)
                        + "\n"
                    )
            start += about["num_frames"]
    about |= {"manifest_sha256": manifest_sha256, "num_frames": start}
    (temporary / "store.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    Places(temporary)
