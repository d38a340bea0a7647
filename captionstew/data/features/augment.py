"""Augmentation of one clip, and SpecAugment of a batch.

What happens to a clip in an epoch is drawn from (seed, epoch, cut id) alone: it is the same in
every worker, rank and batch, and after a resume. The same draw can be applied to samples or, where
features are stored, to log-mel frames: gain is exact there but for the floor, cropping and delaying
are so to one frame.
"""

import contextlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captionstew.data.audio import MIN_DURATION, SAMPLING_RATE
from captionstew.data.features.fbank import PADDING_VALUE
from captionstew.data.resampling import one_thread, resample
from captionstew.hashing import stable_hash


@dataclass(frozen=True)
class AugmentConfig:
    """Limits of what is drawn for a clip; the defaults change nothing.

    max_gain_db: gain uniform in +-max_gain_db. min_crop: a random part of this share of the clip or
    more is kept. max_delay: up to this many seconds of silence before the clip. speeds: factors to
    choose from; 1.1 is 10 % faster and higher (the rate is changed, as in Kaldi's speed
    perturbation). max_seconds: of a longer clip, a random part of this length is kept (0: all of
    it).
    """

    max_gain_db: float = 0.0
    min_crop: float = 1.0
    max_delay: float = 0.0
    speeds: tuple[float, ...] = (1.0,)
    max_seconds: float = 0.0

    def __post_init__(self) -> None:
        if (
            self.max_gain_db < 0
            or not 0 < self.min_crop <= 1
            or self.max_delay < 0
            or self.max_seconds < 0
        ):
            raise ValueError(f"impossible augmentation: {self}")
        if not self.speeds or any(not 0.5 <= speed <= 2.0 for speed in self.speeds):
            raise ValueError(f"speed factors must lie between 0.5 and 2, got {self.speeds}")


@dataclass(frozen=True)
class Augmentation:
    """What one clip gets: speed factor, share kept and its place (both 0..1), delay in seconds,
    gain in dB.
    """

    speed: float = 1.0
    keep: float = 1.0
    start: float = 0.0
    delay: float = 0.0
    gain_db: float = 0.0
    max_seconds: float = math.inf


def draw_augmentation(config: AugmentConfig, seed: int, epoch: int, cut_id: str) -> Augmentation:
    rng = np.random.default_rng(stable_hash("augment", seed, epoch, cut_id))
    return Augmentation(
        speed=config.speeds[int(rng.integers(len(config.speeds)))],
        keep=float(rng.uniform(config.min_crop, 1.0)),
        start=float(rng.uniform()),
        delay=float(rng.uniform(0.0, config.max_delay)),
        gain_db=float(rng.uniform(-config.max_gain_db, config.max_gain_db)),
        max_seconds=config.max_seconds or math.inf,
    )


def augment_samples(
    samples: np.ndarray, draw: Augmentation, sampling_rate: int = SAMPLING_RATE
) -> np.ndarray:
    """(N,) float32 -> (M,) float32 within [-1, 1]; M is at least 0.25 s."""
    if draw.speed != 1.0:
        samples = resample(samples, round(sampling_rate * draw.speed), sampling_rate)
    begin, end = _kept_part(len(samples), sampling_rate, draw)
    samples = np.clip(samples[begin:end] * np.float32(10 ** (draw.gain_db / 20)), -1.0, 1.0)
    padding = (
        round(draw.delay * sampling_rate),
        max(0, math.ceil(MIN_DURATION * sampling_rate) - len(samples)),
    )
    return np.pad(samples, padding) if any(padding) else samples


def augment_features(features: Tensor, draw: Augmentation, frame_shift: float = 0.01) -> Tensor:
    """(T, F) log-mel -> (T', F): the same draw on stored features (their speed is changed
    beforehand).

    A gain of g dB multiplies energies by 10^(g/10), so it adds g ln(10) / 10 to their logarithms.
    """
    begin, end = _kept_part(len(features), 1 / frame_shift, draw)
    louder = features[begin:end] + draw.gain_db * math.log(10) / 10
    louder = louder.clamp_(min=PADDING_VALUE)
    delay = features.new_full((round(draw.delay / frame_shift), features.shape[1]), PADDING_VALUE)
    return torch.cat([delay, louder]) if len(delay) else louder


def _kept_part(length: int, rate: float, draw: Augmentation) -> tuple[int, int]:
    """Begin and end of the part that is kept of `length` samples or frames, of which `rate` make a
    second.
    """
    longest = min(length, round(min(draw.max_seconds, length / rate) * rate))
    kept = min(longest, max(math.ceil(MIN_DURATION * rate), round(longest * draw.keep)))
    begin = round((length - kept) * draw.start)
    return begin, begin + kept


class SpecAugment:
    """Time warping and masks over the valid frames of each clip, by lhotse's SpecAugment.

    `num_frame_masks` time masks of up to `frames_mask_size` frames cover at most
    `max_frames_mask_fraction` of a clip, `num_feature_masks` masks up to `features_mask_size` bins.
    Everything follows PyTorch's global generator.
    """

    def __init__(
        self,
        num_frame_masks: int = 10,
        frames_mask_size: int = 100,
        max_frames_mask_fraction: float = 0.15,
        num_feature_masks: int = 2,
        features_mask_size: int = 27,
        time_warp_factor: int = 80,
        probability: float = 0.9,
    ) -> None:
        from lhotse.dataset import SpecAugment as LhotseSpecAugment

        self._transform = LhotseSpecAugment(
            time_warp_factor, num_feature_masks, features_mask_size, num_frame_masks,
            frames_mask_size, max_frames_mask_fraction, probability,
        )  # fmt: skip

    def __call__(self, features: Tensor, lengths: Tensor) -> Tensor:
        """features (B, T, F), lengths (B,) frames -> (B, T, F): a masked copy; padding stays as it
        is.
        """
        masked = features.clone()
        with one_thread(), seeded(int(torch.randint(2**31, ()))):
            for clip, length in zip(masked, lengths.tolist(), strict=True):
                clip[:length] = self._transform(clip[None, :length])[0]
        return masked


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the generators of Python, numpy and PyTorch, and puts them back afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
