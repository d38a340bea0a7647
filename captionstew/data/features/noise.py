"""Background noise from a folder of recordings (MUSAN, or any other), mixed into training clips.

Whether a clip gets noise, which, from where and how loud is drawn from (seed, epoch, cut id) alone,
as for the other augmentations: it is the same in every worker, rank and batch, and after a resume.
"""

import os
from pathlib import Path

import numpy as np

from captionstew.data.audio import (
    AUDIO_ENDINGS,
    SAMPLING_RATE,
    BadAudio,
    audio_duration,
    read_audio,
)
from captionstew.hashing import stable_hash


class NoiseMixer:
    """Adds a random part of a random recording below `folder` at a random signal-to-noise ratio.

    Attributes:
      files: paths of the recordings, sorted, with their lengths in seconds.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        seed: int,
        probability: float = 0.5,
        snr_db: tuple[float, float] = (10, 20),
    ) -> None:
        """Reads how long all recordings are.

        Raises:
          ValueError: no recording there, one cannot be opened, or an impossible probability or
              range.
        """
        if not 0 <= probability <= 1 or snr_db[0] > snr_db[1]:
            raise ValueError(
                f"impossible noise: probability {probability}, SNR from {snr_db[0]} to"
                f" {snr_db[1]} dB"
            )
        self.seed, self.probability, self.snr_db = seed, probability, snr_db
        paths = sorted(
            path for path in Path(folder).rglob("*") if path.suffix.lower() in AUDIO_ENDINGS
        )
        if not paths:
            raise ValueError(
                f"{folder}: no recordings; unpack MUSAN there, or name another folder of audio"
                " files"
            )
        self.files = [(path, _duration(path)) for path in paths]

    @property
    def hours(self) -> float:
        return sum(duration for _, duration in self.files) / 3600

    def mix(
        self, samples: np.ndarray, epoch: int, cut_id: str, sampling_rate: int = SAMPLING_RATE
    ) -> np.ndarray:
        """(N,) float32 within [-1, 1] -> the same, perhaps with noise

        Raises:
          BadAudio: the noise cannot be read; the error names its file.
        """
        generator = np.random.default_rng(stable_hash("noise", self.seed, epoch, cut_id))
        if generator.random() >= self.probability:
            return samples
        path, duration = self.files[int(generator.integers(len(self.files)))]
        needed = len(samples) / sampling_rate
        offset = float(generator.uniform(0.0, max(0.0, duration - needed)))
        snr_db = float(generator.uniform(*self.snr_db))
        part = needed if duration > needed else None
        return add_noise(samples, read_audio(path, offset, part, sampling_rate), snr_db)


def add_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """(N,), (M,) -> (N,): noise, repeated where it is shorter, `snr_db` below the samples' mean
    energy, peaks clipped.

    Silence, as clip or as noise, leaves the samples as they are: it has no level to compare with.
    """
    noise = np.resize(noise, len(samples))
    signal_energy, noise_energy = (
        np.mean(samples**2, dtype=np.float64),
        np.mean(noise**2, dtype=np.float64),
    )
    if signal_energy == 0 or noise_energy == 0:
        return samples
    gain = np.sqrt(signal_energy / noise_energy / 10 ** (snr_db / 10))
    return np.clip(samples + np.float32(gain) * noise, -1.0, 1.0)


def _duration(path: Path) -> float:
    try:
        return audio_duration(path)
    except BadAudio as error:
        raise ValueError(
            f"{path}: this noise cannot be opened ({error.reason}); remove or repair it"
        ) from error
