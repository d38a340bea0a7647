"""Batches for training and evaluation, from flags and manifests."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from captionstew.data.augment import AugmentConfig, SpecAugment
from captionstew.data.cuts import filter_by_duration, open_cuts
from captionstew.data.dataset import CaptionDataset, make_loader
from captionstew.data.fbank import FbankConfig
from captionstew.data.feature_store import FeatureStore
from captionstew.data.manifest import IndexedCuts
from captionstew.data.sampling import EpochBatches, ResumeMismatch

Batch = dict[str, Any]


class Settings(Protocol):
    """The data flags (captionstew.training.flags.DataFlags) and what else decides batches."""

    manifest_dir: Path
    max_duration: float
    num_buckets: int
    num_workers: int
    seed: int
    resume_mode: str


class TrainingBatches:
    """Training and validation batches of one rank, for the training loop."""

    def __init__(self, flags: Any, rank: int, world_size: int) -> None:
        self.fbank = FbankConfig(backend=flags.fbank_backend)
        self.coverage = read_coverage(flags.manifest_dir)
        self._flags = flags
        self._share = (rank, world_size)
        store = FeatureStore(flags.feature_store) if flags.feature_store else None
        augment = AugmentConfig(
            max_gain_db=flags.augment_gain_db,
            min_crop=flags.augment_min_crop,
            max_seconds=flags.augment_max_seconds,
            max_delay=flags.augment_max_delay,
            speeds=flags.speed_factors(),
        )
        self._spec_augment = (
            SpecAugment(num_frame_masks=flags.spec_aug_frame_masks, time_warp_factor=flags.spec_aug_time_warp)
            if flags.enable_spec_aug
            else None
        )
        cuts = filter_by_duration(open_cuts(flags.manifest_dir / "cuts_train.jsonl"))
        self._sampler = EpochBatches(
            cuts, flags.max_duration, num_buckets=flags.num_buckets, seed=flags.seed, rank=rank, world_size=world_size
        )
        dataset = CaptionDataset(self.fbank, seed=flags.seed, augment=augment, store=store)
        self._loader = make_loader(self._sampler, dataset, flags.num_workers)

    def train_batches(self, epoch: int, position: dict[str, Any] | None) -> Iterator[Batch]:
        """The batches of an epoch from a place on; empty ones (all clips broken) are passed over."""
        self._sampler.set_epoch(epoch)
        consumed = 0
        if position is not None:
            try:
                self._sampler.load_state_dict(position)
                consumed = position["consumed"]
            except ResumeMismatch:
                if self._flags.resume_mode == "exact":
                    raise
                self._sampler.set_epoch(epoch)
        for number, batch in enumerate(self._loader, start=consumed + 1):
            if not batch["cut_ids"]:
                continue
            if self._spec_augment is not None:
                batch["features"] = self._spec_augment(batch["features"], batch["feature_lengths"])
            yield batch | {"position": self._sampler.state_dict(number)}

    def valid_batches(self) -> Iterator[Batch]:
        """This rank's share of the validation batches."""
        flags = self._flags
        cuts = filter_by_duration(open_cuts(flags.manifest_dir / "cuts_valid.jsonl"))
        batches = feature_batches(cuts, self.fbank, flags.max_duration, flags.num_workers)
        return itertools.islice(batches, self._share[0], None, self._share[1])


def feature_batches(cuts: IndexedCuts, fbank: FbankConfig, max_duration: float, num_workers: int) -> Iterator[Batch]:
    """Every clip once, with features, in an order that depends on the manifest alone; a clip that fails is listed."""
    sampler = EpochBatches(cuts, max_duration, shuffle=False)
    return iter(make_loader(sampler, CaptionDataset(fbank), num_workers))


def waveform_batches(cuts: IndexedCuts, sampling_rate: int, max_duration: float, num_workers: int) -> Iterator[Batch]:
    """Every clip once, as waveforms; a clip that cannot be read stops the evaluation (BadAudio)."""
    sampler = EpochBatches(cuts, max_duration, shuffle=False)
    fbank = FbankConfig(sampling_rate=sampling_rate)
    return iter(make_loader(sampler, CaptionDataset(fbank, strict=True, waveforms=True), num_workers))


def read_coverage(manifest_dir: Path) -> dict[str, Any]:
    """What preparation found of each source (report.json beside the manifests), to travel with checkpoints."""
    path = manifest_dir / "report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
