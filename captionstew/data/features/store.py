"""Features of a whole manifest in one memory-mapped file, for small corpora and many epochs.

    cuts = open_cuts("cuts_train.jsonl")
    store = build_feature_store("data/features", cuts, FbankConfig(), num_jobs=2)
    dataset = CaptionDataset(FbankConfig(), store=store)

An hour of audio takes 115 MB (float32, per speed factor). A store is a folder of four files:
`features.bin` (frames x bins, row after row), `index.jsonl` (a row per cut and speed), `places.npy`
(the same for random access) and `store.json` (what it was made of). Its name holds the hashes of
the feature configuration and of the manifest; it appears complete or not at all, and is used again
when it is there.
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
from captionstew.data.features.places import Places, require_room
from captionstew.data.manifests.cuts import audio_part
from captionstew.data.manifests.index import IndexedCuts
from captionstew.files import atomic_folder
from captionstew.hashing import stable_hash
from captionstew.locks import one_writer
from captionstew.parallel import process_map

DTYPES = ("float32", "float16")
MAX_GB = 500.0  # of one store: 4,300 h in float32


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
        self._places = Places(self.folder)
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
        place = self._places.find(cut_id, speed)
        if place is None:
            failure = self._places.failure(cut_id)
            if failure is not None:
                raise BadAudio(*failure)
            raise KeyError(f"{self.folder} holds no features of cut {cut_id} at speed {speed}")
        start, count = place
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
        return self._places.num_stored

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
    max_gb: float = MAX_GB,
) -> FeatureStore:
    """Computes the features of all `cuts` below `root`, or opens those that are already there.

    Raises ValueError where they would take more than `max_gb` gigabytes. Clips that cannot be read
    are counted on stdout and raise BadAudio when they are loaded.
    """
    if dtype not in DTYPES:
        raise ValueError(f"feature store dtype must be one of {DTYPES}, got {dtype!r}")
    speeds = tuple(sorted(set(speeds)))
    key = stable_hash(config.hash(), cuts.sha256, *speeds, dtype)
    folder = Path(root) / f"fbank-{key:016x}"
    if not (folder / "store.json").is_file():
        require_store_room(cuts, config, speeds, dtype, max_gb)
        with one_writer(folder.parent, wait=True):
            if not (folder / "store.json").is_file():  # another process may have made it meanwhile
                with atomic_folder(folder) as temporary:
                    _write_store(temporary, cuts, config, speeds, dtype, num_jobs, progress)
                    Places(temporary)
    return FeatureStore(folder)


def require_store_room(
    cuts: IndexedCuts, config: FbankConfig, speeds: Sequence[float], dtype: str, max_gb: float
) -> None:
    """Raises ValueError where the features of `cuts` take more than `max_gb` gigabytes."""
    seconds = float(cuts.durations.sum()) * sum(1 / speed for speed in speeds)
    frame_bytes = config.num_mel_bins * np.dtype(dtype).itemsize
    require_room(seconds, frame_bytes, config.frame_shift, max_gb)


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
