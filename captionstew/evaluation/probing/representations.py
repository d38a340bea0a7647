"""Clip vectors and frames of a frozen encoder, cached as `--cache` says, or vectors from a file.

clip      pooled vectors on disk; enough for mean pooling
frames    all frames on disk, memory-mapped; any pooling, and detection
none      nothing on disk: vectors are kept in memory, frames are computed for every batch
auto      clip where the pooling allows it, else frames
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captionstew.data.batches.captioned import waveform_batches
from captionstew.data.batches.dataset import CaptionDataset
from captionstew.data.features.fbank import FbankConfig
from captionstew.data.manifests.index import IndexedCuts
from captionstew.evaluation.frames.cache import cached_frames, encode_batch
from captionstew.evaluation.probing.clips import (
    DetectionClips,
    FrameClips,
    FrameSource,
    VectorClips,
)
from captionstew.evaluation.probing.fit import Clips
from captionstew.evaluation.probing.tasks import BrokenClip, ProbeTask, TaskClips, events, targets
from captionstew.models.encoders.base import FrozenEncoder
from captionstew.models.encoders.load import load_encoder
from captionstew.models.encoders.stored import StoredEmbeddings, load_embeddings
from captionstew.models.heads import AttentionHead, FrameHead, Head, LinearHead
from captionstew.models.pooling import POOLED_DIM, POOLINGS

ATTENTION = "attention"
FRAMES = "frames"
STORED = "embeddings"
CACHES = ("auto", "clip", "frames", "none")
POOL_BATCH = 64  # clips pooled at a time from cached frames


def load_system(
    encoder: str, embeddings: str | Path | None, device: torch.device
) -> FrozenEncoder | StoredEmbeddings:
    """The frozen encoder of that name, or the vectors of a file."""
    return load_embeddings(embeddings) if embeddings else load_encoder(encoder, device)


@dataclass(frozen=True)
class Loaded:
    """Clips with their representations.

    Attributes:
      clips: what heads are trained or scored on.
      kept: the clips it holds, in its order.
      failed: the others: their audio cannot be read.
    """

    clips: Clips
    kept: TaskClips
    failed: list[BrokenClip]


@dataclass(frozen=True)
class Representations:
    """Where the representations of clips come from.

    Attributes:
      system: an encoder, or vectors computed elsewhere.
      pooling: a name of POOLINGS, or attention; detection takes frames whatever it says.
      cache: one of CACHES.
      max_duration, num_workers: seconds of audio per batch and loading processes, while encoding.
    """

    system: FrozenEncoder | StoredEmbeddings
    pooling: str
    cache: str
    cache_dir: Path
    max_duration: float
    num_workers: int

    def pooling_of(self, task: ProbeTask) -> str:
        """frames, attention, mean, mean_std, or embeddings for stored vectors.

        Raises:
          ValueError: stored vectors or `--cache clip` cannot serve the task.
        """
        pooling = FRAMES if task.is_detection else self.pooling
        needs_frames = pooling in (FRAMES, ATTENTION)
        what = "detection" if task.is_detection else "attention pooling"
        if isinstance(self.system, StoredEmbeddings):
            if needs_frames:
                raise ValueError(
                    f"{self.system.description['path']} holds one vector per clip: no {what}"
                    f" ({task.name})"
                )
            return STORED
        if needs_frames and self.cache == "clip":
            raise ValueError(
                f"--cache clip keeps pooled vectors, {what} ({task.name}) needs --cache frames or"
                " none"
            )
        return pooling

    def head(self, task: ProbeTask, num_classes: int, num_attention_heads: int) -> Head:
        """The untrained head of a task."""
        pooling = self.pooling_of(task)
        if pooling == FRAMES:
            return FrameHead(self.system.dim, num_classes)
        if pooling == ATTENTION:
            return AttentionHead(self.system.dim, num_classes, num_attention_heads)
        return LinearHead(self.system.dim * POOLED_DIM.get(pooling, 1), num_classes)

    @property
    def _encoder(self) -> FrozenEncoder:
        """Where there must be one; `pooling_of` has refused what stored vectors cannot do."""
        if isinstance(self.system, StoredEmbeddings):
            raise TypeError(f"{self.system.description['path']} is no encoder")
        return self.system

    @property
    def device(self) -> torch.device:
        return (
            torch.device("cpu") if isinstance(self.system, StoredEmbeddings) else self.system.device
        )

    @property
    def num_parameters(self) -> int:
        """Of the encoder; 0 for stored vectors, whose system is not here."""
        return (
            0
            if isinstance(self.system, StoredEmbeddings)
            else sum(p.numel() for p in self.system.parameters())
        )

    def load(self, found: TaskClips, task: ProbeTask, classes: Sequence[str]) -> Loaded:
        """Representations and targets of these clips.

        Raises:
          ValueError: none of them can be read.
        """
        pooling = self.pooling_of(task)
        if pooling in (FRAMES, ATTENTION):
            source, failed, num_workers = self._frames(found.cuts, task.max_seconds)
        else:
            vectors, failed = self._vectors(found.cuts, pooling, task.max_seconds)
        kept = found.without(failed)
        if not kept.ids:
            reason = next(iter(failed.values()))
            raise ValueError(
                f"{found.cuts.path}: none of {len(found.ids)} clips can be read, the first:"
                f" {reason}"
            )
        if pooling == FRAMES:
            clips: Clips = DetectionClips(
                source,
                kept.ids,
                events(kept.values, classes),
                heard(kept, task),
                len(classes),
                self._encoder.frame_rate,
                num_workers,
                self._clip_bytes(kept, task),
            )
        elif pooling == ATTENTION:
            truth = targets(kept.values, task, classes)
            clips = FrameClips(source, kept.ids, truth, num_workers, self._clip_bytes(kept, task))
        else:
            rows = torch.from_numpy(np.stack([vectors[cut_id] for cut_id in kept.ids]))
            clips = VectorClips(rows, targets(kept.values, task, classes))
        unreadable = [
            BrokenClip(cut_id, failed[cut_id], value)
            for cut_id, value in zip(found.ids, found.values)
            if cut_id in failed
        ]
        return Loaded(clips, kept, unreadable)

    def _clip_bytes(self, clips: TaskClips, task: ProbeTask) -> float:
        """Size of the longest clip's frames in float32."""
        return float(heard(clips, task).max()) * self._encoder.frame_rate * self._encoder.dim * 4

    def _vectors(
        self, cuts: IndexedCuts, pooling: str, max_seconds: float
    ) -> tuple[dict[str, np.ndarray], dict]:
        """Vectors (D,) by cut id, and the clips that cannot be read."""
        if isinstance(self.system, StoredEmbeddings):
            ids = [cut.id for cut in cuts]
            return dict(zip(ids, self.system.select(ids))), {}
        if self.cache == "none":
            return self._vectors_in_memory(cuts, pooling, max_seconds)
        arguments = (self._encoder, cuts, self.cache_dir, self.max_duration, self.num_workers)
        if self.cache == "frames":
            table = cached_frames(*arguments, max_seconds=max_seconds)
            ids = [cut.id for cut in cuts if cut.id in table]
            parts = [ids[first : first + POOL_BATCH] for first in range(0, len(ids), POOL_BATCH)]
            pooled = [POOLINGS[pooling](*table.batch(part)).numpy() for part in parts]
            return dict(zip(ids, (row for part in pooled for row in part))), table.failed
        table = cached_frames(*arguments, pooling=pooling, max_seconds=max_seconds, dtype="float32")
        return {cut.id: table[cut.id][0] for cut in cuts if cut.id in table}, table.failed

    def _vectors_in_memory(
        self, cuts: IndexedCuts, pooling: str, max_seconds: float
    ) -> tuple[dict, dict]:
        vectors: dict[str, np.ndarray] = {}
        failed: dict[str, str] = {}
        rate = self._encoder.sampling_rate
        for batch in waveform_batches(
            cuts, rate, self.max_duration, self.num_workers, strict=False
        ):
            failed |= dict(batch["failed"])
            if batch["cut_ids"]:
                rows = encode_batch(self._encoder, batch, pooling, max_seconds)[0][:, 0]
                vectors.update(zip(batch["cut_ids"], rows.cpu().numpy()))
        return vectors, failed

    def _frames(
        self, cuts: IndexedCuts, max_seconds: float
    ) -> tuple[FrameSource, dict[str, str], int]:
        """Where frames come from, the clips that cannot be read, and how many processes may read
        ahead: none where the encoder, which is here, makes them.
        """
        if self.cache == "none":
            source = EncodedFrames(self._encoder, cuts, max_seconds)
            return source.batch, source.unreadable(self.max_duration, self.num_workers), 0
        table = cached_frames(
            self._encoder,
            cuts,
            self.cache_dir,
            self.max_duration,
            self.num_workers,
            max_seconds=max_seconds,
        )
        return table.batch, table.failed, self.num_workers


class EncodedFrames:
    """Frames computed anew for every batch that asks for them, where no disk can hold them all."""

    def __init__(self, encoder: FrozenEncoder, cuts: IndexedCuts, max_seconds: float) -> None:
        self.encoder = encoder
        self.cuts = cuts
        self.max_seconds = max_seconds
        self._rows = {cut.id: row for row, cut in enumerate(cuts)}
        config = FbankConfig(sampling_rate=encoder.sampling_rate)
        self._dataset = CaptionDataset(config, strict=True, waveforms=True)

    def batch(self, cut_ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """-> frames (B, T', D) float32, lengths (B,)"""
        batch: dict[str, Any] = self._dataset[
            self.cuts.read([self._rows[cut_id] for cut_id in cut_ids])
        ]
        return encode_batch(self.encoder, batch, max_seconds=self.max_seconds)

    def unreadable(self, max_duration: float, num_workers: int) -> dict[str, str]:
        """{cut id: reason} of the clips that cannot be read, found by reading them all once."""
        batches = waveform_batches(
            self.cuts, self.encoder.sampling_rate, max_duration, num_workers, strict=False
        )
        return {cut_id: reason for batch in batches for cut_id, reason in batch["failed"]}


def heard(clips: TaskClips, task: ProbeTask) -> np.ndarray:
    """Seconds (N,) of each clip that the encoder gets."""
    return np.minimum(clips.cuts.durations, task.max_seconds or np.inf)
