"""Features of a whole manifest in one memory-mapped file, for small corpora and many epochs.

    cuts = open_cuts("cuts_train.jsonl")
    store = build_feature_store("data/features", cuts, FbankConfig(), num_jobs=2)
    dataset = CaptionDataset(FbankConfig(), store=store)

An hour of audio takes 115 MB (float32, per speed factor). A store is a folder of three files:
`features.bin` (frames x bins, row after row), `index.jsonl` (a row per cut and speed) and
`store.json` (what it was made of). Its name holds the hashes of the feature configuration and of
the manifest; it appears complete or not at all, and is used again when it is there.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from captionstew.data.audio import BadAudio, read_audio
from captionstew.data.features.augment import Augmentation, augment_samples
from captionstew.data.features.fbank import Fbank, FbankConfig
from captionstew.data.manifests.cuts import audio_part
from captionstew.data.manifests.index import IndexedCuts
from captionstew.files import atomic_folder
from captionstew.hashing import stable_hash
from captionstew.locks import one_writer
from captionstew.parallel import process_map

DTYPES = ("float32", "float16")


class FeatureStore:
    """Features by cut id and speed factor, read from the page cache; pickled as its folder's
    name.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        about = json.loads((self.folder / "store.json").read_text(encoding="utf-8"))
        self.config = FbankConfig.from_dict(about["fbank"])
        self.manifest_sha256: str = about["manifest_sha256"]
        self.speeds = tuple(about["speeds"])
        self._rows: dict[tuple[str, float], tuple[int, int]] = {}
        self._failed: dict[str, tuple[str, str]] = {}
        with open(self.folder / "index.jsonl", encoding="utf-8") as file:
            for row in map(json.loads, file):
                if "reason" in row:
                    self._failed[row["id"]] = (row["path"], row["reason"])
                else:
                    self._rows[row["id"], row["speed"]] = (row["start"], row["frames"])
        shape = (about["num_frames"], self.config.num_mel_bins)
        self._frames = (
            np.memmap(self.folder / "features.bin", about["dtype"], "r", shape=shape)
            if shape[0]
            else np.zeros(shape, about["dtype"])
        )

    def load(self, cut_id: str, speed: float = 1.0) -> Tensor:
        """(T, F) float32; raises BadAudio for a clip that could not be read, KeyError for an
        unknown cut.
        """
        if cut_id in self._failed:
            raise BadAudio(*self._failed[cut_id])
        try:
            start, count = self._rows[cut_id, speed]
        except KeyError:
            raise KeyError(
                f"{self.folder} holds no features of cut {cut_id} at speed {speed}"
            ) from None
        return torch.from_numpy(self._frames[start : start + count].astype(np.float32))

    def require_speeds(self, speeds: Sequence[float]) -> None:
        """Raises ValueError when a speed factor was not stored."""
        missing = sorted(set(speeds) - set(self.speeds))
        if missing:
            raise ValueError(
                f"{self.folder} was stored at speeds {self.speeds}, not at {missing}; build it anew"
            )

    def require_cuts(self, cuts: IndexedCuts) -> None:
        """Raises ValueError when the store is of another manifest."""
        if cuts.manifest_sha256 != self.manifest_sha256:
            raise ValueError(
                f"{self.folder} was made from another manifest than {cuts.path}; build it anew"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __reduce__(self):
        return FeatureStore, (self.folder,)


def build_feature_store(
    root: str | os.PathLike,
    cuts: IndexedCuts,
    config: FbankConfig,
    speeds: Sequence[float] = (1.0,),
    dtype: str = "float32",
    num_jobs: int = 1,
    progress: bool = True,
) -> FeatureStore:
    """Computes the features of all `cuts` below `root`, or opens those that are already there.

    Clips that cannot be read are counted on stdout and raise BadAudio when they are loaded.
    """
    if dtype not in DTYPES:
        raise ValueError(f"feature store dtype must be one of {DTYPES}, got {dtype!r}")
    speeds = tuple(sorted(set(speeds)))
    key = stable_hash(config.hash(), cuts.sha256, *speeds, dtype)
    folder = Path(root) / f"fbank-{key:016x}"
    if not (folder / "store.json").is_file():
        with one_writer(folder.parent, wait=True):
            if not (folder / "store.json").is_file():  # another process may have made it meanwhile
                with atomic_folder(folder) as temporary:
                    _write_store(temporary, cuts, config, speeds, dtype, num_jobs, progress)
    return FeatureStore(folder)


def _write_store(folder, cuts, config, speeds, dtype, num_jobs, progress) -> None:
    start, failed = 0, 0
    jobs = ((cut.id, *audio_part(cut), config, speeds, dtype) for cut in cuts)
    bar = tqdm(
        process_map(_extract, jobs, num_jobs, threads=1),
        desc="features",
        total=len(cuts),
        unit="clip",
        disable=not progress,
    )
    with (
        open(folder / "features.bin", "wb") as data,
        open(folder / "index.jsonl", "w", encoding="utf-8") as index,
    ):
        for cut_id, path, found in bar:
            if isinstance(found, str):
                failed += 1
                index.write(json.dumps({"id": cut_id, "path": path, "reason": found}) + "\n")
                continue
            for speed, frames in zip(speeds, found, strict=True):
                data.write(frames.tobytes())
                row = {"id": cut_id, "speed": speed, "start": start, "frames": len(frames)}
                index.write(json.dumps(row) + "\n")
                start += len(frames)
    if failed:
        print(f"{failed} of {len(cuts)} clips could not be read; their reasons are in index.jsonl")
    about = {
        "fbank": config.to_dict(),
        "manifest_sha256": cuts.manifest_sha256,
        "speeds": speeds,
        "dtype": dtype,
    }
    (folder / "store.json").write_text(
        json.dumps(about | {"num_frames": start}, indent=1), encoding="utf-8"
    )


def _extract(job: tuple) -> tuple[str, str, list[np.ndarray] | str]:
    """(cut id, path, features at each speed or the reason why there are none)."""
    cut_id, path, offset, duration, config, speeds, dtype = job
    try:
        samples = read_audio(path, offset, duration, config.sampling_rate)
    except BadAudio as error:
        return cut_id, path, error.reason
    fbank = Fbank(config)
    changed = (
        augment_samples(samples, Augmentation(speed=speed), config.sampling_rate)
        for speed in speeds
    )
    return (
        cut_id,
        path,
        [fbank.extract(torch.from_numpy(clip)).numpy().astype(dtype) for clip in changed],
    )
