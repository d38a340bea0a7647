"""From a batch of cuts to tensors, and the loader that does it in worker processes.

    batches = EpochBatches(open_cuts("cuts_train.jsonl"), max_duration=640, seed=42)
    loader = make_loader(batches, CaptionDataset(FbankConfig(), seed=42), num_workers=2)
    batches.set_epoch(1)
    for batch in loader: ...

A batch is a dict, B clips in the cuts' order:

    features (B, T, 80) float32, feature_lengths (B,) int64    padded with PADDING_VALUE
    waveforms (B, N) float32                 in place of features, with waveforms=True; zero-padded
    num_samples (B,) int64, sampling_rate    of what is heard, at the rate of the features' config
    durations (B,) float64                   seconds, of the whole clip in the manifest
    captions [str], all_captions [[str]]     one drawn per clip and epoch; all of them
    cut_ids [str], audio_keys [str]
    custom [dict]                            the supervision's custom, labels included
    label [str | None], labels [[str] | None]                  None where a clip has no label
    failed [(cut id, reason)]                clips that were left out; B counts the others
    epoch int
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from captionstew.data.audio import MIN_DURATION, BadAudio, read_audio
from captionstew.data.captions import choose_caption
from captionstew.data.features.augment import (
    AugmentConfig,
    augment_features,
    augment_samples,
    draw_augmentation,
    seeded,
)
from captionstew.data.features.fbank import PADDING_VALUE, Fbank, FbankConfig, pad_features
from captionstew.data.manifests.cuts import audio_part
from captionstew.data.resampling import one_thread
from captionstew.hashing import stable_hash

if TYPE_CHECKING:
    from lhotse import CutSet, MonoCut

    from captionstew.data.features.noise import NoiseMixer
    from captionstew.data.features.store import FeatureStore

Batch = dict[str, Any]


class CaptionDataset(Dataset):
    """Maps a CutSet (or an (epoch, CutSet) pair) to a batch.

    Features come from `store`, else from the cuts' own precomputed features, else from the audio.
    `strict` raises BadAudio for a clip that cannot be read, as evaluation must; otherwise it is
    left out and listed under `failed` (a batch may become empty). With `captions_only` no audio is
    read: a batch has neither features nor waveforms, and num_samples follows from the manifest.
    `transform` is done to a whole batch that is not empty; what it draws from the global generators
    follows (seed, epoch, cut ids), wherever the batch is made.
    """

    def __init__(
        self,
        fbank: FbankConfig | None = None,
        *,
        seed: int = 0,
        strict: bool = False,
        waveforms: bool = False,
        captions_only: bool = False,
        augment: AugmentConfig | None = None,
        store: "FeatureStore | None" = None,
        noise: "NoiseMixer | None" = None,
        transform: Callable[[Batch], Batch] | None = None,
    ) -> None:
        if noise is not None and store is not None:
            raise ValueError(
                f"{store.folder}: noise cannot be mixed into stored features; leave out one of"
                " the two"
            )
        if waveforms and store is not None:
            raise ValueError(
                "a feature store holds no waveforms: give either waveforms=True or a store"
            )
        if augment is not None and store is not None:
            store.require_speeds(augment.speeds)
        self.config = fbank or FbankConfig()
        self.bytes_per_second = 4 * self.config.sampling_rate  # waveforms; features are half of it
        if store is not None and store.config != self.config:
            raise ValueError(
                f"{store.folder}: stored with {store.config}, but this run uses {self.config}"
            )
        self.seed = seed
        self.strict = strict
        self.waveforms = waveforms
        self.captions_only = captions_only
        self.augment = augment
        self.store = store
        self.noise = noise
        self.transform = transform
        self._fbank: Fbank | None = None

    def __getitem__(self, item: "CutSet | tuple[int, CutSet]") -> Batch:
        epoch, cuts = item if isinstance(item, tuple) else (0, item)
        with one_thread():
            batch = self._batch(cuts, epoch)
            if self.transform is None or not batch["cut_ids"]:
                return batch
            with seeded(stable_hash("batch", self.seed, epoch, *batch["cut_ids"]) % 2**32):
                return self.transform(batch)

    def _batch(self, cuts: "CutSet", epoch: int) -> Batch:
        if self.captions_only:
            samples = [round(cut.duration * self.config.sampling_rate) for cut in cuts]
            return self._describe(list(cuts), epoch) | {
                "failed": [],
                "num_samples": torch.tensor(samples),
            }
        clips, kept, failed = [], [], []
        for cut in cuts:
            try:
                clips.append(
                    self._samples(cut, epoch) if self.waveforms else self._features(cut, epoch)
                )
                kept.append(cut)
            except BadAudio as error:
                if self.strict:
                    raise
                failed.append((cut.id, str(error)))
        batch = self._describe(kept, epoch) | {"failed": failed}
        if self.waveforms:
            waveforms = [torch.from_numpy(samples) for samples in clips] or [torch.zeros(0)]
            batch["waveforms"] = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)[
                : len(kept)
            ]
            batch["num_samples"] = torch.tensor(
                [len(samples) for samples in clips], dtype=torch.int64
            )
        else:
            matrices = [features for features, _ in clips] or [
                torch.zeros(0, self.config.num_mel_bins)
            ]
            features, lengths = pad_features(matrices)
            batch["features"], batch["feature_lengths"] = (
                features[: len(kept)],
                lengths[: len(kept)],
            )
            batch["num_samples"] = torch.tensor([count for _, count in clips], dtype=torch.int64)
        return batch

    def _describe(self, cuts: "list[MonoCut]", epoch: int) -> Batch:
        custom = [cut.supervisions[0].custom for cut in cuts]
        return {
            "epoch": epoch,
            "sampling_rate": self.config.sampling_rate,
            "cut_ids": [cut.id for cut in cuts],
            "audio_keys": [values["audio_key"] for values in custom],
            "captions": [
                choose_caption(values["captions"], values["audio_key"], self.seed, epoch)
                for values in custom
            ],
            "all_captions": [values["captions"] for values in custom],
            "custom": custom,
            "label": [values.get("label") for values in custom],
            "labels": [values.get("labels") for values in custom],
            "durations": torch.tensor([cut.duration for cut in cuts], dtype=torch.float64),
        }

    def _samples(self, cut: "MonoCut", epoch: int) -> np.ndarray:
        """(N,) float32 at 16 kHz, augmented."""
        samples = read_audio(*audio_part(cut), self.config.sampling_rate)
        if self.augment is not None:
            draw = draw_augmentation(self.augment, self.seed, epoch, cut.id)
            samples = augment_samples(samples, draw, self.config.sampling_rate)
        return (
            samples
            if self.noise is None
            else self.noise.mix(samples, epoch, cut.id, self.config.sampling_rate)
        )

    def _features(self, cut: "MonoCut", epoch: int) -> tuple[Tensor, int]:
        """(T, F) and the number of samples they stand for; raises ValueError for noise on
        precomputed features.
        """
        if self.store is None and not cut.has_features:
            samples = self._samples(cut, epoch)
            if self._fbank is None:
                self._fbank = Fbank(self.config)
            return self._fbank.extract(torch.from_numpy(samples)), len(samples)
        if self.noise is not None:
            raise ValueError(f"cut {cut.id}: noise cannot be mixed into precomputed features")
        draw = draw_augmentation(self.augment, self.seed, epoch, cut.id) if self.augment else None
        if self.store is not None:
            features = self.store.load(cut.id, draw.speed if draw else 1.0)
        else:
            features = self._precomputed(cut, draw.speed if draw else 1.0)
        if draw is not None:
            features = augment_features(features, draw, self.config.frame_shift)
        return features, round(len(features) * self.config.frame_shift * self.config.sampling_rate)

    def _precomputed(self, cut: "MonoCut", speed: float) -> Tensor:
        """(T, F) that lhotse stored, padded to 0.25 s; raises ValueError if they are of another
        kind.
        """
        stored = cut.features
        if (
            stored.num_features != self.config.num_mel_bins
            or stored.frame_shift != self.config.frame_shift
        ):
            raise ValueError(
                f"cut {cut.id}: its features have {stored.num_features} bins every"
                f" {stored.frame_shift} s, this run uses {self.config.num_mel_bins} every"
                f" {self.config.frame_shift} s"
            )
        if speed != 1.0:
            raise ValueError(
                f"cut {cut.id}: precomputed features cannot change speed; drop the speed factors"
            )
        features = torch.from_numpy(cut.load_features())
        missing = self.config.num_frames(math.ceil(MIN_DURATION * self.config.sampling_rate)) - len(
            features
        )
        return torch.nn.functional.pad(features, (0, 0, 0, max(0, missing)), value=PADDING_VALUE)
