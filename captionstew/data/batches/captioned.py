"""Batches for training and evaluation, from flags and manifests."""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import DataLoader

from captionstew.data.batches.dataset import Batch, CaptionDataset
from captionstew.data.batches.flags import FeatureFlags
from captionstew.data.batches.loader import make_loader
from captionstew.data.batches.sampling import ClipsT, EpochBatches
from captionstew.data.features.augment import AugmentConfig, SpecAugment
from captionstew.data.features.fbank import FbankConfig
from captionstew.data.features.store import FeatureStore
from captionstew.data.manifests.cuts import filter_by_duration, open_cuts
from captionstew.data.manifests.index import IndexedCuts
from captionstew.hashing import stable_hash

if TYPE_CHECKING:
    from captionstew.data.batches.weighted import WeightedDraw
    from captionstew.data.features.noise import NoiseMixer


class TrainingBatches:
    """Training and validation batches of one rank, for the training loop."""

    def __init__(self, flags: FeatureFlags, rank: int, world_size: int) -> None:
        self.fbank = FbankConfig(backend=flags.fbank_backend)
        self.coverage = read_coverage(flags.manifest_dir)
        self._flags: FeatureFlags = flags
        self._share = (rank, world_size)
        store = FeatureStore(flags.feature_store) if flags.feature_store else None
        augment = AugmentConfig(
            max_gain_db=flags.augment_gain_db,
            min_crop=flags.augment_min_crop,
            max_seconds=flags.augment_max_seconds,
            max_delay=flags.augment_max_delay,
            speeds=flags.speed_factors(),
        )
        cuts = self.clips("train")
        self.sampler = EpochBatches(
            cuts, flags.max_duration, num_buckets=flags.num_buckets, seed=flags.seed, rank=rank,
            world_size=world_size, draw=self.draw(cuts),
        )  # fmt: skip
        self._dataset = CaptionDataset(
            self.fbank, seed=flags.seed, augment=augment, store=store, noise=self.noise(),
            transform=self.transform(),
        )  # fmt: skip
        self._loader = make_loader(self.sampler, self._dataset, flags.num_workers)

    def clips(self, split: str) -> IndexedCuts:
        """The cuts to train (`train`) or validate (`valid`) on."""
        return filter_by_duration(open_cuts(self._flags.manifest_dir / f"cuts_{split}.jsonl"))

    def draw(self, cuts: IndexedCuts) -> "WeightedDraw | None":
        """What an epoch is made of, if not of every clip once."""
        return None

    def noise(self) -> "NoiseMixer | None":
        """What to mix into the training clips."""
        return None

    def transform(self) -> Callable[[Batch], Batch] | None:
        """What the loading processes do to a whole training batch, here SpecAugment."""
        flags = self._flags
        if not flags.enable_spec_aug:
            return None
        return MaskedFeatures(
            SpecAugment(
                num_frame_masks=flags.spec_aug_frame_masks,
                time_warp_factor=flags.spec_aug_time_warp,
            )
        )

    def train_batches(self, epoch: int, position: dict[str, Any] | None) -> Iterator[Batch]:
        """The batches of an epoch from a place on; one whose clips are all broken comes empty, as
        every rank must get the same number.
        """
        return batches_from(self.sampler, self._loader, epoch, position)

    def batch_of(self, positions: Sequence[int]) -> Batch:
        """The training batch of the cuts at these positions, made in this process."""
        dataset = copy.copy(
            self._dataset
        )  # what it opens here must not travel to the loader's processes
        return dataset[1, self.sampler.cuts.read(positions)]

    def valid_batches(self) -> Iterator[Batch]:
        """This rank's share of at most --valid-clips validation clips, the same ones every time."""
        flags = self._flags
        share = validation_share(self.clips("valid"), flags.valid_clips, *self._share)
        if len(share) == 0:
            return iter(())
        return feature_batches(
            share, self.fbank, flags.max_duration, flags.num_workers, strict=False
        )


@dataclass(frozen=True)
class MaskedFeatures:
    """SpecAugment of a batch's features."""

    spec_augment: SpecAugment

    def __call__(self, batch: Batch) -> Batch:
        masked = self.spec_augment(batch["features"], batch["feature_lengths"])
        return batch | {"features": masked}


def batches_from(
    sampler: EpochBatches,
    loader: DataLoader,
    epoch: int,
    position: dict[str, Any] | None,
) -> Iterator[Batch]:
    """The loader's batches of an epoch, from its start or from after `position`; each says its own
    position.

    Raises:
      ResumeMismatch: `position` was left under other sampler settings.
    """
    sampler.set_epoch(epoch)
    consumed = 0
    if position is not None:
        sampler.load_state_dict(position)
        consumed = position["consumed"]
    for number, batch in enumerate(loader, start=consumed + 1):
        yield batch | {"position": sampler.state_dict(number)}


def validation_share(cuts: ClipsT, max_clips: int, rank: int, world_size: int) -> ClipsT:
    """This rank's part of at most `max_clips` cuts that a hash chooses: the same ones every
    time.
    """
    rows = sorted(range(len(cuts)), key=lambda row: stable_hash("valid", row))[:max_clips]
    return cuts.select(np.sort(np.array(rows))[rank::world_size])


def feature_batches(
    cuts: IndexedCuts,
    fbank: FbankConfig,
    max_duration: float,
    num_workers: int,
    strict: bool = True,
) -> Iterator[Batch]:
    """Every clip once, with features, in an order that depends on the manifest alone.

    A clip that cannot be read stops the evaluation (BadAudio), or is listed under `failed` if not
    `strict`.
    """
    sampler = EpochBatches(cuts, max_duration, shuffle=False)
    return iter(make_loader(sampler, CaptionDataset(fbank, strict=strict), num_workers))


def waveform_batches(
    cuts: IndexedCuts,
    sampling_rate: int,
    max_duration: float,
    num_workers: int,
    strict: bool = True,
) -> Iterator[Batch]:
    """Every clip once, as waveforms; a clip that cannot be read stops the evaluation (BadAudio), or
    is listed under `failed` if not `strict`.
    """
    sampler = EpochBatches(cuts, max_duration, shuffle=False)
    fbank = FbankConfig(sampling_rate=sampling_rate)
    return iter(
        make_loader(sampler, CaptionDataset(fbank, strict=strict, waveforms=True), num_workers)
    )


def read_coverage(manifest_dir: Path) -> dict[str, Any]:
    """What preparation found of each source (report.json beside the manifests), to travel with
    checkpoints.
    """
    path = manifest_dir / "report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
