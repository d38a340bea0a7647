"""Captioned batches of a frozen encoder's frames: what the alignment protocol trains and evaluates
on.

A batch is as captionstew.data.batches.dataset makes it, with the frames as `features` (B, T', dim)
and their numbers as `feature_lengths` (B,): a model that would encode features takes them as they
are.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from captionstew.data.batches.captioned import Batch, batches_from, read_coverage, validation_share
from captionstew.data.batches.dataset import CaptionDataset
from captionstew.data.batches.flags import BatchFlags
from captionstew.data.batches.loader import make_loader
from captionstew.data.batches.sampling import EpochBatches
from captionstew.data.features.fbank import FbankConfig
from captionstew.data.manifests.cuts import filter_by_duration, open_cuts
from captionstew.data.manifests.index import IndexedCuts
from captionstew.distributed import Rank, main_first
from captionstew.evaluation.frames.cache import FrameTable, cached_frames, encode_batch
from captionstew.models.encoders.base import FrozenEncoder
from captionstew.models.pooling import frame_mask

STATISTICS_CLIPS = 500  # training clips that the channels' mean and deviation are taken from


class FrameFlags(Protocol):
    """What a table of frames reads of a recipe's flags."""

    @property
    def cache(self) -> str: ...

    @property
    def cache_dir(self) -> Path: ...

    @property
    def max_duration(self) -> float: ...

    @property
    def num_workers(self) -> int: ...


class FrameBatchFlags(BatchFlags, FrameFlags, Protocol):
    """What batches of frames read of them."""


class FrameBatches:
    """Training and validation batches of one rank, for the training loop.

    Frames are read from the cache, which the first rank fills, or with `--cache none` computed for
    every batch.
    """

    def __init__(self, encoder: FrozenEncoder, flags: FrameBatchFlags, rank: Rank) -> None:
        self.encoder = encoder
        self.coverage = read_coverage(flags.manifest_dir)
        self._flags = flags
        self._rank = rank
        train, valid = (
            filter_by_duration(open_cuts(flags.manifest_dir / f"cuts_{split}.jsonl"))
            for split in ("train", "valid")
        )
        self.train_cuts = train
        self.num_train = len(train)
        self.valid_cuts = validation_share(valid, flags.valid_clips, rank.rank, rank.world_size)
        self._train_table = frame_table(encoder, train, flags, rank)
        self._valid_table = frame_table(encoder, valid, flags, rank)
        self.sampler = EpochBatches(
            train, flags.max_duration, num_buckets=flags.num_buckets, seed=flags.seed,
            rank=rank.rank, world_size=rank.world_size,
        )  # fmt: skip
        self._dataset = _dataset(encoder, self._train_table is None, flags.seed, strict=False)
        self._loader = make_loader(self.sampler, self._dataset, flags.num_workers)

    def train_batches(self, epoch: int, position: dict[str, Any] | None) -> Iterator[Batch]:
        """The batches of an epoch, from its start or from after `position`."""
        for batch in batches_from(self.sampler, self._loader, epoch, position):
            yield with_frames(batch, self.encoder, self._train_table)

    def batch_of(self, positions: Sequence[int]) -> Batch:
        """The training batch of the cuts at these positions, made in this process."""
        dataset = copy.copy(
            self._dataset
        )  # what it opens here must not travel to the loader's processes
        return with_frames(
            dataset[1, self.train_cuts.read(positions)], self.encoder, self._train_table
        )

    def valid_batches(self) -> Iterator[Batch]:
        """This rank's share of at most --valid-clips validation clips, the same ones every time."""
        if len(self.valid_cuts) == 0:
            return iter(())
        flags = self._flags
        return frame_batches(
            self.encoder,
            self.valid_cuts,
            self._valid_table,
            flags.max_duration,
            flags.num_workers,
            strict=False,
        )

    def channel_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation (dim,) of the channels over frames of some training clips."""
        flags = self._flags
        return channel_statistics(
            self.encoder, self.train_cuts, self._train_table, flags.max_duration, flags.num_workers
        )


def frame_table(
    encoder: FrozenEncoder, cuts: IndexedCuts, flags: FrameFlags, rank: Rank, strict: bool = False
) -> FrameTable | None:
    """The cached frames of these cuts; None with --cache none. Raises what kept_frames does."""
    return None if flags.cache == "none" else kept_frames(encoder, cuts, flags, rank, strict)


def kept_frames(
    encoder: FrozenEncoder, cuts: IndexedCuts, flags: FrameFlags, rank: Rank, strict: bool = False
) -> FrameTable:
    """The cached frames of these cuts, which rank 0 computes if need be.

    Raises:
      BadAudio: a clip cannot be read and `strict` is set.
    """
    with main_first(rank):
        return cached_frames(
            encoder, cuts, flags.cache_dir, flags.max_duration, flags.num_workers, strict=strict
        )


def frame_batches(
    encoder: FrozenEncoder,
    cuts: IndexedCuts,
    table: FrameTable | None,
    max_duration: float,
    num_workers: int,
    strict: bool = True,
) -> Iterator[Batch]:
    """Every clip once, in an order that depends on the manifest alone.

    Raises:
      BadAudio: a clip cannot be read and `strict` is set.
    """
    sampler = EpochBatches(cuts, max_duration, shuffle=False)
    loader = make_loader(sampler, _dataset(encoder, table is None, 0, strict), num_workers)
    return (with_frames(batch, encoder, table) for batch in loader)


def _dataset(encoder: FrozenEncoder, waveforms: bool, seed: int, strict: bool) -> CaptionDataset:
    config = FbankConfig(sampling_rate=encoder.sampling_rate)
    return CaptionDataset(
        config, seed=seed, strict=strict, waveforms=waveforms, captions_only=not waveforms
    )


def with_frames(batch: Batch, encoder: FrozenEncoder, table: FrameTable | None) -> Batch:
    """The batch with `features` (B, T', dim) and `feature_lengths` (B,), from the table or from its
    waveforms.
    """
    if table is not None:
        batch = without_failed(batch, table)
    if not batch["cut_ids"]:
        frames, lengths = torch.zeros(0, 0, encoder.dim), torch.zeros(0, dtype=torch.int64)
    elif table is not None:
        frames, lengths = table.batch(batch["cut_ids"])
    else:
        frames, lengths = encode_batch(encoder, batch)
    return batch | {"features": frames, "feature_lengths": lengths}


def without_failed(batch: Batch, table: FrameTable) -> Batch:
    """The batch without the clips that could not be read when the table was made, which are listed
    as failed.
    """
    kept = [row for row, cut_id in enumerate(batch["cut_ids"]) if cut_id not in table.failed]
    if len(kept) == len(batch["cut_ids"]):
        return batch
    failed = [
        (cut_id, table.failed[cut_id]) for cut_id in batch["cut_ids"] if cut_id in table.failed
    ]
    names = [
        name
        for name, value in batch.items()
        if name != "failed" and isinstance(value, (list, Tensor))
    ]
    chosen = {
        name: (
            value[kept]
            if isinstance(value := batch[name], Tensor)
            else [value[row] for row in kept]
        )
        for name in names
    }
    return batch | chosen | {"failed": batch["failed"] + failed}


def channel_statistics(
    encoder: FrozenEncoder,
    cuts: IndexedCuts,
    table: FrameTable | None,
    max_duration: float,
    num_workers: int,
) -> tuple[Tensor, Tensor]:
    """-> mean and deviation (dim,) over all frames of STATISTICS_CLIPS clips; a constant channel
    has deviation 1.

    Raises:
      ValueError: there is no frame.
    """
    some = validation_share(cuts, STATISTICS_CLIPS, 0, 1)
    dim = encoder.dim
    count, total, squares = (
        0,
        torch.zeros(dim, dtype=torch.float64),
        torch.zeros(dim, dtype=torch.float64),
    )
    for batch in frame_batches(encoder, some, table, max_duration, num_workers, strict=False):
        frames = (
            batch["features"][frame_mask(batch["feature_lengths"], batch["features"].size(1))]
            .cpu()
            .double()
        )
        count += len(frames)
        total += frames.sum(0)
        squares += frames.square().sum(0)
    if count == 0:
        raise ValueError(
            "no training clip could be read: nothing to take the channels' mean and deviation from"
        )
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0.0).sqrt()
    logging.info("channels' mean and deviation from %d frames", count)
    return mean.float(), torch.where(deviation > 1e-6, deviation, 1.0).float()
