"""What probes are trained and scored on: clip vectors in memory, or frames that come batch by
batch.

Each kind fulfils captionstew.evaluation.probing.fit.Clips. N clips, D channels, T frames, C
classes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from captionstew.data.batches.loader import read_ahead
from captionstew.data.resampling import one_thread
from captionstew.evaluation.probing.detection import (
    frame_targets,
    num_detection_frames,
    to_detection_rate,
)
from captionstew.evaluation.probing.fit import PADDING_TARGET
from captionstew.models.pooling import frame_mask

FrameSource = Callable[
    [Sequence[str]], tuple[Tensor, Tensor]
]  # cut ids -> frames (n, T, D), lengths (n,)
STATISTICS_CLIPS = 2000  # clips whose frames give the channels' mean and deviation
STATISTICS_BATCH = 64


class _BatchesOf(Dataset):
    """Positions -> their batch, in a loading process."""

    def __init__(self, batch: Callable[[Tensor], Any]) -> None:
        self.batch = batch

    def __getitem__(self, rows: Tensor) -> Any:
        with one_thread():
            return self.batch(rows)


class VectorClips:
    """One vector per clip, all in memory."""

    in_memory = True
    frames_per_clip = 1

    def __init__(self, vectors: Tensor, targets: Tensor) -> None:
        """vectors (N, D), targets (N,) or (N, C)"""
        self.vectors = vectors
        self.targets = targets

    def __len__(self) -> int:
        return len(self.vectors)

    def batch(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """(n,) -> vectors (n, D); targets (n,) or (n, C)"""
        return (self.vectors[rows],), self.targets[rows]

    def batches(self, parts: Sequence[Tensor]) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """The batches of these positions, one after the other."""
        return map(self.batch, parts)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation (D,)."""
        return self.vectors.mean(0), self.vectors.std(0, correction=0)


class FrameClips:
    """Frames of each clip, read or computed when a batch asks for them."""

    in_memory = False
    frames_per_clip = 1

    def __init__(
        self,
        source: FrameSource,
        cut_ids: Sequence[str],
        targets: Tensor,
        num_workers: int = 0,
        clip_bytes: float = 0.0,
    ) -> None:
        """targets (N,) or (N, C); num_workers: processes that call `source` ahead of the steps;
        clip_bytes: the most that a clip's frames take.
        """
        self.source = source
        self.cut_ids = cut_ids
        self.targets = targets
        self.num_workers = num_workers
        self.clip_bytes = clip_bytes
        self._parts: list[Tensor] = []
        self._loader: DataLoader | None = None
        self._item_bytes = 0.0  # that the loader reckons with

    def __len__(self) -> int:
        return len(self.cut_ids)

    def frames(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) -> frames (n, T, D) float32, lengths (n,)"""
        return self.source([self.cut_ids[row] for row in rows.tolist()])

    def batch(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """(n,) -> frames (n, T, D), lengths (n,); targets (n,) or (n, C)"""
        return self.frames(rows), self.targets[rows]

    def batches(self, parts: Sequence[Tensor]) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """The batches of these positions, one after the other, read ahead."""
        size = self.clip_bytes * max(map(len, parts))
        if self._loader is None or size > self._item_bytes:
            rows, self._item_bytes = _BatchesOf(self.batch), size
            self._loader = read_ahead(rows, self._parts, self.num_workers, size)
        self._parts[:] = parts
        return iter(self._loader)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation (D,) over the frames of at most STATISTICS_CLIPS clips, chosen by a
        fixed seed.
        """
        rows = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[
            :STATISTICS_CLIPS
        ]
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for part in rows.split(STATISTICS_BATCH):
            frames, lengths = self.frames(part)
            own = frames[frame_mask(lengths, frames.size(1))].double()
            count += len(own)
            total, squares = own.sum(0) + total, own.square().sum(0) + squares
        mean = total / count
        return (
            mean.float().cpu(),
            (squares / count - mean.square()).clamp(min=0.0).sqrt().float().cpu(),
        )


class DetectionClips(FrameClips):
    """Frames at the detection rate, and for every frame the classes that sound."""

    def __init__(
        self,
        source: FrameSource,
        cut_ids: Sequence[str],
        events: Sequence[Sequence[tuple[float, float, int]]],
        durations: np.ndarray,
        num_classes: int,
        frame_rate: float,
        num_workers: int = 0,
        clip_bytes: float = 0.0,
    ) -> None:
        """events: per clip (onset, offset, class index); durations (N,) seconds; frame_rate of the
        source in Hz.
        """
        super().__init__(source, cut_ids, torch.empty(0), num_workers, clip_bytes)
        self.events = events
        self.durations = durations
        self.num_classes = num_classes
        self.frame_rate = frame_rate
        self.frames_per_clip = num_detection_frames(float(durations.max()))

    def frames(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) -> frames (n, T, D) at the detection rate, lengths (n,)"""
        return to_detection_rate(
            *super().frames(rows), self.frame_rate, self.durations[rows.numpy()]
        )

    def batch(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """(n,) -> frames (n, T, D), lengths (n,); targets (n, T, C), PADDING_TARGET beyond a clip's
        frames
        """
        frames, lengths = self.frames(rows)
        targets = torch.full((len(rows), frames.size(1), self.num_classes), PADDING_TARGET)
        for place, (row, length) in enumerate(zip(rows.tolist(), lengths.tolist())):
            targets[place, :length] = frame_targets(self.events[row], length, self.num_classes)
        return (frames, lengths), targets
