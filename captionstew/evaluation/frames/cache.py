"""What a frozen encoder makes of every clip, on disk: computed once, read through a memory map.

    encoder, cuts = load_encoder("pretrained.pt"), open_cuts("cuts_train.jsonl")
    table = cached_frames(encoder, cuts, Path("exp/cache"), 100.0, 2)
    table["clip-17"]                                      # (T', D), read when it is looked at
    frames, lengths = table.batch(["clip-17", "clip-3"])  # (2, T', D) zero-padded, and (2,)
    table.failed                                          # {cut id: reason} of unreadable clips

A table is named by all that decides its values: the encoder's content hash and description, the
manifest's checksum, the pooling, the window, the number format. It lies in shards of SHARD_CLIPS
clips, `<cache dir>/<name>/<number>/`, each complete or absent, so a killed run goes on at the shard
it was in.
"""

import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from captionstew.data.audio import BadAudio
from captionstew.data.batches.captioned import waveform_batches
from captionstew.data.manifests.index import IndexedCuts
from captionstew.data.manifests.trained_clips import ENTRY
from captionstew.files import atomic_folder
from captionstew.hashing import hash_of
from captionstew.locks import one_writer
from captionstew.models.encoders.base import FrozenEncoder
from captionstew.models.pooling import POOLED_DIM, POOLINGS

SHARD_CLIPS = 10_000
FREE_SPACE = 1 << 30  # bytes that a cache leaves free on its disk
BIG_CACHE = 200  # clips; encoding more than this shows a progress bar


class FrameTable:
    """Frames (T', D) of many clips by cut id; a clip's frames are read from disk when they are
    asked for.

    Attributes:
      dim: D.
      failed: reason by cut id, for clips that could not be read; they have no frames.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.failed: dict[str, str] = {}
        self.dim = 0
        self._frames: list[np.ndarray] = []
        self._places: dict[str, tuple[int, int, int]] = {}  # shard, first frame, number of frames
        for shard, folder in enumerate(folders):
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            self.dim = max(self.dim, index["dim"])
            shape = (sum(index["lengths"]), index["dim"])
            path = folder / "frames.bin"
            self._frames.append(
                np.memmap(path, index["dtype"], "r", shape=shape) if shape[0] else np.empty(shape)
            )
            self.failed |= index["failed"]
            first = 0
            for cut_id, length in zip(index["cut_ids"], index["lengths"]):
                self._places[cut_id] = (shard, first, length)
                first += length

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, cut_id: str) -> bool:
        return cut_id in self._places

    def __getitem__(self, cut_id: str) -> np.ndarray:
        """-> (T', D) in the table's number format.

        Raises:
          KeyError: the clip could not be read, with the reason, or is not in the table.
        """
        shard, first, length = self._place(cut_id)
        return self._frames[shard][first : first + length]

    def length(self, cut_id: str) -> int:
        """Number of frames T' of a clip."""
        return self._place(cut_id)[2]

    def batch(self, cut_ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """-> frames (B, T', D) float32, zero-padded, and lengths (B,)"""
        lengths = torch.tensor([self.length(cut_id) for cut_id in cut_ids], dtype=torch.int64)
        frames = torch.zeros(len(cut_ids), int(lengths.max()), self.dim)
        for row, cut_id in enumerate(cut_ids):
            frames[row, : lengths[row]] = torch.from_numpy(np.array(self[cut_id], dtype=np.float32))
        return frames, lengths

    def _place(self, cut_id: str) -> tuple[int, int, int]:
        if cut_id in self.failed:
            raise KeyError(f"{cut_id} has no frames: {self.failed[cut_id]}")
        return self._places[cut_id]


def cached_frames(
    encoder: FrozenEncoder,
    cuts: IndexedCuts,
    cache_dir: Path,
    max_duration: float,
    num_workers: int,
    *,
    pooling: str = "",
    max_seconds: float = 0.0,
    dtype: str = "float16",
    strict: bool = False,
) -> FrameTable:
    """The table of these cuts, from the disk where it is there, else computed. Says its size before
    it starts.

    Args:
      max_duration, num_workers: seconds of audio per batch and loading processes, while encoding.
      pooling: a name of POOLINGS: one pooled vector per clip (T' = 1) in the place of its frames.
      max_seconds: only the start of each clip, at most this long, is encoded (0: all of it).
      dtype: float16 or float32, the number format on disk.
      strict: raise for a clip that cannot be read, instead of listing it in `failed`.

    Raises:
      ValueError: the disk lacks the space, or the encoder gives numbers that the format cannot
          hold.
      BadAudio: a clip cannot be read and `strict` is set.
    """
    settings = _settings(encoder, cuts, pooling, max_seconds, dtype)
    folder = Path(cache_dir) / hash_of(settings)
    shards = [
        np.arange(first, min(first + SHARD_CLIPS, len(cuts)))
        for first in range(0, len(cuts), SHARD_CLIPS)
    ]
    folders = [folder / f"{number:04d}" for number in range(len(shards))]
    if _missing(folders):
        with one_writer(folder, wait=True):
            missing = _missing(folders)  # another process may have made them meanwhile
            rows = np.concatenate([np.arange(0), *(shards[number] for number in missing)])
            if missing:
                _check_space(folder, cuts.durations[rows], encoder, settings)
            with tqdm(
                total=len(rows), unit="clip", desc="encode", disable=len(rows) < BIG_CACHE
            ) as bar:
                for number in missing:
                    batches = waveform_batches(
                        cuts.select(shards[number]),
                        encoder.sampling_rate,
                        max_duration,
                        num_workers,
                        strict,
                    )
                    _write_shard(folders[number], encoder, batches, settings, bar)
    table = FrameTable(folders)
    _report_failed(table.failed, cuts, strict)
    return table


def _missing(folders: Sequence[Path]) -> list[int]:
    return [number for number, path in enumerate(folders) if not (path / "index.json").is_file()]


def encode_batch(
    encoder: FrozenEncoder, batch: dict[str, Any], pooling: str = "", max_seconds: float = 0.0
) -> tuple[Tensor, Tensor]:
    """A batch of waveforms -> frames (B, T', D) float32 on the encoder's device, lengths (B,);
    pooled: T' = 1.
    """
    waveforms, counts = batch["waveforms"], batch["num_samples"]
    if max_seconds:
        most = round(max_seconds * encoder.sampling_rate)
        waveforms, counts = waveforms[:, :most], counts.clamp(max=most)
    with torch.no_grad():  # inference tensors could not take part in a graph
        frames, lengths = encoder(waveforms.to(encoder.device), counts.to(encoder.device))
        if pooling:
            frames, lengths = (
                POOLINGS[pooling](frames, lengths).unsqueeze(1),
                torch.ones_like(lengths),
            )
    return frames.float(), lengths


def estimated_bytes(durations: np.ndarray, encoder: FrozenEncoder, settings: dict[str, Any]) -> int:
    """Size of the frames of clips of these lengths (N,) in seconds."""
    if settings["max_seconds"]:
        durations = np.minimum(durations, settings["max_seconds"])
    frames = (
        len(durations)
        if settings["pooling"]
        else int(np.ceil(durations * encoder.frame_rate).sum())
    )
    factor = POOLED_DIM[settings["pooling"]] if settings["pooling"] else 1
    return frames * encoder.dim * factor * np.dtype(settings["dtype"]).itemsize


def _settings(
    encoder: FrozenEncoder, cuts: IndexedCuts, pooling: str, max_seconds: float, dtype: str
) -> dict[str, Any]:
    """All that decides the values; where the encoder's file lies does not."""
    if dtype not in ("float16", "float32"):
        raise ValueError(f"frames are kept as float16 or float32, not {dtype}")
    what = {
        name: value for name, value in encoder.description.items() if name not in ("path", ENTRY)
    }
    window = {
        "pooling": pooling,
        "max_seconds": max_seconds,
        "dtype": dtype,
        "shard_clips": SHARD_CLIPS,
    }
    return {"encoder": what, "manifest": cuts.sha256} | window


def _check_space(
    folder: Path, durations: np.ndarray, encoder: FrozenEncoder, settings: dict[str, Any]
) -> None:
    """Says what will be written, and refuses what the disk cannot hold."""
    needed = estimated_bytes(durations, encoder, settings)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    what = f"{settings['pooling']} vectors" if settings["pooling"] else "frames"
    print(
        f"{folder}: {what} of {len(durations)} clips, {durations.sum() / 3600:.2f} h, will take "
        f"{_size(needed)} of {_size(free)} free",
        file=sys.stderr,
    )
    if needed + FREE_SPACE > free:
        raise ValueError(
            f"{folder}: {what} of {len(durations)} clips need {_size(needed)}, the disk has"
            f" {_size(free)} free and {_size(FREE_SPACE)} must stay so: name another --cache-dir,"
            " or use --cache clip (pooled vectors) or none"
        )


def _size(count: float) -> str:
    power = min(3, int(math.log(max(count, 1), 1024)))
    return f"{count / 1024**power:.1f} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def _write_shard(
    folder: Path, encoder: FrozenEncoder, batches: Any, settings: dict[str, Any], bar: tqdm
) -> None:
    """Encodes the batches into `folder`, which appears only when it is complete."""
    index: dict[str, Any] = {"settings": settings, "dtype": settings["dtype"], "dim": 0}
    index |= {"cut_ids": [], "lengths": [], "failed": {}}
    with atomic_folder(folder) as partial:
        with open(partial / "frames.bin", "wb") as file:
            for batch in batches:
                index["failed"] |= dict(batch["failed"])
                bar.update(len(batch["failed"]) + len(batch["cut_ids"]))
                if batch["cut_ids"]:
                    _append(file, index, batch["cut_ids"], *encode_batch(
                        encoder, batch, settings["pooling"], settings["max_seconds"]
                    ))  # fmt: skip
        (partial / "index.json").write_text(json.dumps(index), encoding="utf-8")


def _append(
    file: Any, index: dict[str, Any], cut_ids: Sequence[str], frames: Tensor, lengths: Tensor
) -> None:
    """frames (B, T', D), lengths (B,): each clip's own frames to the file and the index."""
    for cut_id, clip, length in zip(cut_ids, frames.cpu().numpy(), lengths.tolist()):
        with np.errstate(over="ignore"):
            values = clip[:length].astype(index["dtype"])
        if not np.isfinite(values).all():
            raise ValueError(
                f"clip {cut_id}: the encoder gives NaN, infinite or, for {index['dtype']}, too"
                f" large numbers (largest {np.abs(clip[:length]).max():.3g})"
            )
        file.write(values.tobytes())
        index["cut_ids"].append(cut_id)
        index["lengths"].append(length)
        index["dim"] = values.shape[1]


def _report_failed(failed: dict[str, str], cuts: IndexedCuts, strict: bool) -> None:
    if not failed:
        return
    first = next(iter(failed.values()))
    if strict:
        raise BadAudio(*first.split(": ", 1)) if ": " in first else ValueError(first)
    print(
        f"{cuts.path}: {len(failed)} of {len(cuts)} clips cannot be read, the first: {first}",
        file=sys.stderr,
    )
