"""An epoch's batches: seeded, bucketed by duration, equal in number on every rank, resumed exactly.

    cuts = open_cuts("cuts_train.jsonl")
    batches = EpochBatches(cuts, max_duration=640, seed=42, rank=0, world_size=8)
    batches.set_epoch(3)
    for cuts in batches: ...                         # lhotse CutSets
    for positions in batches.positions(): ...        # the same as lists of int, no cut is read
    state = batches.state_dict(consumed=1234)        # plain numbers and strings, for the checkpoint

The epoch's seeded permutation is cut into segments of at most `segment_size` cuts; each segment has
its own lhotse DynamicBucketingSampler. Resuming skips whole segments and replays only the current
one, on durations alone, so it takes the same few seconds for a thousand cuts and for ten million.
The sampler works on place-holders that hold a position and a duration; the rows of the manifest are
read where the batch is used, in the loader's workers.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np
from torch.utils.data import Sampler

from captionstew.data.audio import MIN_DURATION
from captionstew.data.manifests.trained_clips import HashedClips
from captionstew.errors import UserError

if TYPE_CHECKING:
    from captionstew.data.batches.weighted import WeightedDraw

BATCHES_PER_BUCKET = 2  # a bucket that holds fewer has the same clips meet in every epoch
CUTS_FOR_BINS = 10_000  # cuts from which the buckets' boundaries are estimated


class ResumeMismatch(UserError):
    """The checkpoint's sampler settings are not this run's; the message lists what changed."""


class Clips(HashedClips, Protocol):
    """What batches can be made of: N cuts of a manifest, or what stands in their place."""

    path: Path
    durations: np.ndarray  # (N,) seconds

    @property
    def sha256(self) -> str:
        """Changes with anything that decides the batches."""

    def __len__(self) -> int: ...

    def read(self, positions: Sequence[int]) -> Any:
        """The rows at these positions, as the data set of a loader takes them."""

    def select(self, rows: Sequence[int] | np.ndarray) -> Self:
        """The cuts at these positions, in this order."""


ClipsT = TypeVar("ClipsT", bound=Clips)


@dataclass(frozen=True)
class SamplerSettings:
    """All that decides which cuts share a batch. `max_duration` in seconds per rank, `manifest` a
    sha256, `draw` what a weighted draw says of itself.
    """

    manifest: str
    max_duration: float
    max_cuts: int | None
    num_buckets: int
    shuffle: bool
    seed: int
    world_size: int
    drop_last: bool
    segment_size: int
    buffer_size: int
    draw: str | None

    def hash(self) -> str:
        return hashlib.sha256(json.dumps(vars(self), sort_keys=True).encode()).hexdigest()[:16]


class EpochBatches(Sampler):
    """Iterates over the current epoch's batches (CutSets) of one rank; `set_epoch` chooses the
    epoch.

    A batch holds at most `max_duration` seconds of audio, its padding and the padding of clips
    under 0.25 s included. `num_buckets` is lowered where the corpus is too small to fill that many.
    With `drop_last` False every cut is seen in every epoch (a few twice when the last batches are
    shared out among more ranks than there are cuts); with `draw` an epoch is made of the cuts that
    it draws.
    """

    def __init__(
        self,
        cuts: Clips,
        max_duration: float,
        *,
        num_buckets: int = 30,
        max_cuts: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        segment_size: int = 100_000,
        buffer_size: int = 10_000,
        draw: "WeightedDraw | None" = None,
    ) -> None:
        if len(cuts) == 0:
            raise ValueError(f"{cuts.path}: no cuts to make batches of")
        if max_duration <= 0 or num_buckets < 1 or segment_size < 1 or not 0 <= rank < world_size:
            raise ValueError(
                f"impossible settings: {max_duration=} {num_buckets=} {rank=} {world_size=}"
            )
        longest = float(cuts.durations.max())
        if longest > max_duration:
            raise ValueError(
                f"{cuts.path}: the longest clip has {longest:.2f} s, raise --max-duration"
                f" ({max_duration})"
            )
        if draw is not None and (len(draw.weights) != len(cuts) or not shuffle):
            raise ValueError(
                f"{cuts.path}: a weighted draw needs a weight for each of {len(cuts)} cuts, and"
                " shuffles"
            )
        self.cuts = cuts
        self.rank = rank
        self.settings = SamplerSettings(
            cuts.sha256, float(max_duration), max_cuts, num_buckets, shuffle, seed, world_size,
            drop_last, segment_size, buffer_size, draw.describe() if draw else None,
        )  # fmt: skip
        self.epoch = 0
        self._draw = draw
        self._start = (
            0,
            0,
            0,
        )  # segment, batches of it already consumed, batches consumed in the epoch
        self._finished: list[int] = []  # batches of the segments completed since _start
        self._durations = np.maximum(cuts.durations, MIN_DURATION)
        self._order: tuple[int, np.ndarray] | None = None  # epoch and its permutation
        self._bins = self._duration_bins()

    @property
    def num_clips(self) -> int:
        """Clips of an epoch, of all ranks together."""
        return self._draw.num_clips if self._draw else len(self.cuts)

    @property
    def num_segments(self) -> int:
        return math.ceil(self.num_clips / self.settings.segment_size)

    @property
    def num_buckets(self) -> int:
        """Buckets really used: fewer than asked for when the corpus cannot fill them."""
        return int(np.searchsorted(self._bins, self._durations.max())) + 1

    @property
    def expected_batches(self) -> int:
        """About how many batches an epoch has on each rank, for progress bars."""
        return max(
            1, round(self._epoch_seconds() / self.settings.max_duration / self.settings.world_size)
        )

    def heaviest(self, num_batches: int = 1000) -> dict[str, list[int]]:
        """Positions of batches that need most memory: as many of the longest clips as fit, and of
        the first `num_batches` of an epoch those with most clips and most padded audio.
        """
        order = np.argsort(-self._durations, kind="stable")
        batches = list(itertools.islice(self._segment_batches(0), num_batches))
        return {
            "longest clips": order[: self._capacity(order[:1].tolist())].tolist(),
            "most clips": max(batches, key=len),
            "most audio": max(batches, key=lambda batch: len(batch) * self._durations[batch].max()),
        }

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; a new one starts at its beginning, the one just restored where it was
        left.
        """
        if epoch != self.epoch:
            self.epoch = epoch
            self._start = (0, 0, 0)
            self._finished = []

    def state_dict(self, consumed: int) -> dict:
        """The place after `consumed` batches of this epoch, counted by the loop that trained on
        them.

        The loop counts, because a loader's workers run ahead of it.
        """
        segment, skipped, before = self._start
        left = consumed - before
        if left < 0:
            raise ValueError(
                f"{consumed} batches consumed, but the epoch was entered after {before}"
            )
        for count in self._finished:
            if left < count - skipped:
                break
            left -= count - skipped
            segment, skipped = segment + 1, 0
        place = {
            "epoch": self.epoch,
            "segment": segment,
            "segment_batches": skipped + left,
            "consumed": consumed,
        }
        return place | {"settings": vars(self.settings).copy(), "hash": self.settings.hash()}

    def load_state_dict(self, state: dict) -> None:
        """Goes to a place that `state_dict` gave; leaves `state` as it is.

        Raises ResumeMismatch that lists the settings which differ.
        """
        if state["hash"] != self.settings.hash():
            ours, theirs = vars(self.settings), state["settings"]
            changed = [
                f"{name} {theirs.get(name)!r} -> {ours.get(name)!r}"
                for name in sorted(ours.keys() | theirs.keys())
                if ours.get(name) != theirs.get(name)
            ]
            raise ResumeMismatch(
                "the epoch cannot be continued exactly, its batches would differ:"
                f" {'; '.join(changed)}. Restore the old settings, or start from the next epoch"
            )
        self.epoch = int(state["epoch"])
        self._start = (int(state["segment"]), int(state["segment_batches"]), int(state["consumed"]))
        self._finished = []

    def __iter__(self) -> Iterator:
        return (self.cuts.read(positions) for positions in self.positions())

    def positions(self) -> Iterator[list[int]]:
        """The batches that iteration gives, as positions in `cuts`: small, and no row is read for
        them.
        """
        self._finished = []
        start, skipped, _ = self._start
        for segment in range(start, self.num_segments):
            count = 0
            for positions in self._rank_batches(segment):
                count += 1
                if segment == start and count <= skipped:
                    continue
                yield positions
            self._finished.append(count)

    def _rank_batches(self, segment: int) -> Iterator[list[int]]:
        """This rank's batches of the segment: all ranks walk the same sequence and take their
        turn.
        """
        world_size = self.settings.world_size
        turn: list[list[int]] = []
        for batch in self._segment_batches(segment):
            turn.append(batch)
            if len(turn) == world_size:
                yield turn[self.rank]
                turn = []
        if turn and not self.settings.drop_last:
            yield _shared_out(turn, world_size)[self.rank]

    def _segment_batches(self, segment: int) -> Iterator[list[int]]:
        """Positions in each batch: what the buckets are left with is joined into full batches at
        the end.
        """
        left: list[int] = []
        for cuts in self._bucketing_sampler(segment):
            batch = [cut.position for cut in cuts]
            batch, too_many = self._within_limit(batch)
            left += too_many
            if self._has_room(batch):
                left += batch
            else:
                yield batch
        batch = []
        for position in sorted(left, key=lambda position: (self._durations[position], position)):
            if self._within_limit([*batch, position])[1]:
                yield batch
                batch = []
            batch.append(position)
        if batch and not (self.settings.drop_last and self._has_room(batch)):
            yield batch

    def _capacity(self, batch: list[int]) -> int:
        """How many clips, padded to the longest of `batch`, fit into a batch."""
        settings = self.settings
        most = int(settings.max_duration / self._durations[batch].max())
        return most if settings.max_cuts is None else min(most, settings.max_cuts)

    def _has_room(self, batch: list[int]) -> bool:
        return len(batch) < self._capacity(batch)

    def _within_limit(self, batch: list[int]) -> tuple[list[int], list[int]]:
        """(the batch cut down to its capacity, the rest): lhotse lets a last, longer clip pass the
        limit.
        """
        capacity = self._capacity(batch)
        if len(batch) <= capacity:
            return batch, []
        longest = int(np.argmax(self._durations[batch]))
        batch = [batch[longest], *batch[:longest], *batch[longest + 1 :]]
        return batch[:capacity], batch[capacity:]

    def _bucketing_sampler(self, segment: int):
        from lhotse import CutSet
        from lhotse.dataset import DynamicBucketingSampler

        settings = self.settings
        return DynamicBucketingSampler(
            CutSet(_Placeholders(self._positions(segment), self._durations)),
            max_duration=settings.max_duration,
            max_cuts=settings.max_cuts,
            duration_bins=self._bins,
            # the positions come shuffled; lhotse would shuffle a whole bucket for every batch
            shuffle=False,
            buffer_size=settings.buffer_size,
            rank=0,
            world_size=1,
            sync_buckets=True,  # lhotse's other way of choosing buckets ends with cuts left over
        )

    def _positions(self, segment: int) -> np.ndarray:
        """Positions of the segment's cuts: an equal share of the epoch's permutation, or draw."""
        if self._order is None or self._order[0] != self.epoch:
            generator = np.random.default_rng([self.settings.seed, self.epoch])
            order = self._draw.positions(generator) if self._draw else np.arange(len(self.cuts))
            if self.settings.shuffle and self._draw is None:
                generator.shuffle(order)
            self._order = self.epoch, order
        return np.array_split(self._order[1], self.num_segments)[segment]

    def _epoch_seconds(self) -> float:
        """Seconds of audio in an epoch (the expected ones of a draw)."""
        if self._draw is None:
            return float(self._durations.sum())
        return float(self._durations @ self._draw.shares) * self._draw.num_clips

    def _duration_bins(self) -> list[float]:
        """Ascending boundaries (seconds) between buckets that hold equal shares of the audio."""
        from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets

        settings = self.settings
        per_segment = self._epoch_seconds() / self.num_segments
        batches = per_segment / (settings.max_duration * settings.world_size)
        num_buckets = min(settings.num_buckets, int(batches / BATCHES_PER_BUCKET), len(self.cuts))
        if num_buckets < 2:
            return [float(self._durations.max())]
        generator = np.random.default_rng(settings.seed)
        if self._draw is not None:
            sample = self._draw.positions(generator)[:CUTS_FOR_BINS]
        else:
            sample = generator.choice(
                len(self.cuts), min(CUTS_FOR_BINS, len(self.cuts)), replace=False
            )
        bins = estimate_duration_buckets(_Placeholders(sample, self._durations), num_buckets)
        return sorted({float(boundary) for boundary in bins})


def _shared_out(batches: list[list[int]], ranks: int) -> list[list[int]]:
    """A batch for every rank out of fewer: the largest are halved, and only single clips are given
    twice. A part of a batch is within the limits of the whole.
    """
    batches = list(batches)
    while len(batches) < ranks and len(most := max(batches, key=len)) > 1:
        batches.remove(most)
        batches += [most[::2], most[1::2]]
    return (batches * ranks)[:ranks]


class _Placeholder:
    """What lhotse's sampler needs of a cut: its duration (seconds), and a place for its own
    remarks.
    """

    __slots__ = ("dataloading_info", "duration", "position")

    def __init__(self, position: int, duration: float) -> None:
        self.position = position
        self.duration = duration


class _Placeholders:
    """A lazy sequence of place-holders for the cuts at `positions` (N,); `durations` are those of
    all cuts.
    """

    def __init__(self, positions: np.ndarray, durations: np.ndarray) -> None:
        self.positions = positions
        self.durations = durations

    def __iter__(self) -> Iterator[_Placeholder]:
        return map(_Placeholder, self.positions.tolist(), self.durations[self.positions].tolist())
