"""Reading audio: one contract whatever the format, one resampler, one rule for every irregularity.

    from captionstew.data.audio import inspect_audio, read_audio
    samples = read_audio("dog.wav")            # float32 (N,), mono, 16 kHz, within [-1, 1]

The rules, in the order in which they apply:

1. libsndfile decodes (WAV, FLAC, OGG, MP3, ...), by content and not by file name; FFmpeg decodes
   what libsndfile does not open (M4A, WebM, WMA, ...) and files whose announced length is not that
   of their audio. A file that cannot be decoded to its end is bad.
2. NaN or infinite samples make a file bad, and so does a sampling rate outside 1 kHz to 1 MHz.
3. Channels are averaged.
4. Other rates are converted by one windowed sinc (`resampling`), and by nothing else: features
   would otherwise depend on which packages happen to be installed.
5. What goes beyond full scale (float files, lossy decoders, the resampler's overshoot) is divided
   by its peak, so that the waveform keeps its shape and lies within [-1, 1].
6. A clip shorter than 0.25 s is zero-padded at its end to 0.25 s.
"""

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from captionstew.data.decoders.contract import FORGIVEN, BadAudio, Decoder
from captionstew.data.decoders.opening import open_audio
from captionstew.data.resampling import resample

# Every format that a decoder may open; whether it does is found out by trying.
AUDIO_ENDINGS = (
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf",
    ".sph", ".nist", ".voc", ".flac", ".mp3", ".mp2", ".mpga", ".ogg", ".oga", ".opus", ".spx",
    ".m4a", ".m4b", ".mp4", ".3gp", ".mov", ".aac", ".adts", ".ac3", ".eac3", ".amr", ".webm",
    ".weba", ".mkv", ".mka", ".wma", ".wmv", ".asf", ".avi", ".flv", ".ape", ".tak", ".tta", ".wv",
    ".mpc", ".dsf",
)  # fmt: skip

SAMPLING_RATE = 16000  # Hz
MIN_RATE, MAX_RATE = 1_000, 1_000_000  # Hz; others are mistakes of a header
MIN_DURATION = 0.25  # seconds; shorter clips are zero-padded
MAX_DURATION = 60.0  # seconds; longer clips are left out when a corpus is prepared

# Samples of all channels decoded at a time: bounds the memory whatever the header announces.
BLOCK = 1 << 20
# Channels cancel where their mean has less than this share of their energy (20 dB).
CANCELLING = 0.01


@dataclass(frozen=True)
class AudioInfo:
    """What a file really holds, found by decoding it to the end.

    `duration` is in seconds, `sampling_rate` in Hz, `num_samples` counts samples per channel at
    that rate, and `fingerprint` is a hash of the decoded samples: two files with one fingerprint
    hold the same recording. `decoder` read it; `cancelling` channels leave next to nothing when
    they are averaged.
    """

    duration: float
    sampling_rate: int
    channels: int
    num_samples: int
    fingerprint: str
    decoder: str = "libsndfile"
    cancelling: bool = False


def inspect_audio(path: str | os.PathLike) -> AudioInfo:
    """Decodes the whole file in bounded memory; raises BadAudio with the reason when it cannot be
    used.
    """
    digest = hashlib.blake2b(digest_size=16)
    num_samples = 0
    energy = np.zeros(2)  # of the mean of the channels, and the mean of theirs
    with closing(_open(path)) as file:
        for block in _blocks(path, file, None):
            digest.update(block.tobytes())
            num_samples += len(block)
            if file.channels > 1:
                energy += _energy(block.mean(axis=1)), _energy(block) / file.channels
        if num_samples == 0:
            raise BadAudio(path, "holds no audio samples")
        return AudioInfo(
            duration=num_samples / file.sampling_rate,
            sampling_rate=file.sampling_rate,
            channels=file.channels,
            num_samples=num_samples,
            fingerprint=digest.hexdigest(),
            decoder=file.name,
            cancelling=bool(energy[0] < CANCELLING * energy[1]),
        )


def read_audio(
    path: str | os.PathLike,
    offset: float = 0.0,
    duration: float | None = None,
    sampling_rate: int = SAMPLING_RATE,
) -> np.ndarray:
    """(N,) float32 mono within [-1, 1]: `duration` seconds from `offset` on (default: all the
    rest).

    Raises BadAudio when the file cannot be decoded, holds NaN, or ends more than 0.25 s before the
    asked part does.
    """
    with closing(_open(path, skip=offset > 0)) as file:
        source_rate = file.sampling_rate
        wanted = None if duration is None else round(duration * source_rate)
        if offset > 0:
            file.skip_to(round(offset * source_rate))
        blocks = [block.mean(axis=1, dtype=np.float32) for block in _blocks(path, file, wanted)]
    samples = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
    if len(samples) == 0:
        raise BadAudio(
            path, "holds no audio samples" if offset == 0 else f"holds no audio after {offset} s"
        )
    if wanted is not None and wanted - len(samples) > FORGIVEN * source_rate:
        found, asked = len(samples) / source_rate, wanted / source_rate
        raise BadAudio(
            path, f"ends after {found:.3f} s of the {asked:.3f} s that the manifest announces"
        )
    samples = resample(samples, source_rate, sampling_rate)
    peak = np.abs(samples).max()
    if peak > 1:
        samples = samples / peak
    missing = math.ceil(MIN_DURATION * sampling_rate) - len(samples)
    return np.pad(samples, (0, missing)) if missing > 0 else samples


def audio_duration(path: str | os.PathLike) -> float:
    """Seconds of a file: as its header says where that can be trusted, else by decoding it."""
    with closing(_open(path)) as file:
        announced = file.duration
    return inspect_audio(path).duration if announced is None else announced


def _open(path: str | os.PathLike, skip: bool = False) -> Decoder:
    file = open_audio(path, skip)
    if not MIN_RATE <= file.sampling_rate <= MAX_RATE:
        file.close()
        raise BadAudio(
            path,
            f"has a sampling rate of {file.sampling_rate} Hz, outside {MIN_RATE} to {MAX_RATE}:"
            " correct its header",
        )
    return file


def _blocks(path: str | os.PathLike, file: Decoder, wanted: int | None) -> Iterator[np.ndarray]:
    """Yields float32 (n, channels) blocks up to `wanted` samples or the real end; raises
    BadAudio.
    """
    most = max(1, BLOCK // file.channels)
    done = 0
    while wanted is None or done < wanted:
        block = file.read(most if wanted is None else min(most, wanted - done))
        if len(block) == 0:
            return
        if not np.isfinite(block).all():
            raise BadAudio(
                path, f"holds {np.count_nonzero(~np.isfinite(block))} NaN or infinite samples"
            )
        done += len(block)
        yield block


def _energy(samples: np.ndarray) -> float:
    return float(np.square(samples, dtype=np.float64).sum())
