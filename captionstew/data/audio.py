"""Reading audio: one decoder, one resampler, one rule for every irregularity.

    from captionstew.data.audio import inspect_audio, read_audio
    samples = read_audio("dog.wav")            # float32 (N,), mono, 16 kHz, within [-1, 1]

The rules, in the order in which they apply:

1. libsndfile decodes (WAV, FLAC, OGG, MP3, ...), by content and not by file name. A file that it
   cannot decode to the end is bad; a length announced in the header is never trusted.
2. NaN or infinite samples make a file bad.
3. Channels are averaged.
4. Other rates are converted by lhotse's sinc resampler, and by nothing else: features would
   otherwise depend on which packages happen to be installed.
5. What goes beyond full scale (float files, lossy decoders, the resampler's overshoot) is divided
   by its peak, so that the waveform keeps its shape and lies within [-1, 1].
6. A clip shorter than 0.25 s is zero-padded at its end to 0.25 s.
"""

import hashlib
import math
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from captionstew.errors import UserError

# Every format that a decoder may open; whether it does is found out by trying.
AUDIO_ENDINGS = (
    ".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".mp4", ".webm", ".mkv",
    ".wma", ".aif", ".aiff", ".au", ".snd", ".caf", ".w64", ".rf64", ".sph",
)  # fmt: skip
UNREADABLE = ".m4a"  # by libsndfile: where a decoded copy lies beside it, the copy is taken

SAMPLING_RATE = 16000  # Hz
MIN_DURATION = 0.25  # seconds; shorter clips are zero-padded
MAX_DURATION = 60.0  # seconds; longer clips are left out when a corpus is prepared

# Samples per channel decoded at a time: bounds the memory whatever the header announces.
BLOCK = 1 << 20
UNKNOWN_LENGTH = 1 << 62  # samples; what libsndfile says of FLAC streams, which it then cannot read
# Elements (256 MiB); rates with no common divisor need kernels of gigabytes.
MAX_RESAMPLER_KERNEL = 1 << 26
# What downloads leave in the place of audio, by how a file begins: what it is, what to do.
NOT_AUDIO = (
    (rb"<(!doctype\s+html|html|head|body)", "an HTML page; download the file again"),
    (rb"version https://git-lfs", "a Git LFS pointer; fetch the file with `git lfs pull`"),
    (rb"<\?xml|<error", "an XML error message; download the file again"),
    (rb"[{\[]\s*[\"{\[]", "JSON, perhaps an error message; download the file again"),
)


class BadAudio(UserError):
    """An audio file that cannot be used. Attributes: `path` and `reason` (one line)."""

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(path, reason)  # both, so that the exception survives a process boundary
        self.path = str(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class AudioInfo:
    """What a file really holds, found by decoding it to the end.

    `duration` is in seconds, `sampling_rate` in Hz, `num_samples` counts samples per channel at
    that rate, and `fingerprint` is a hash of the decoded samples: two files with one fingerprint
    hold the same recording.
    """

    duration: float
    sampling_rate: int
    channels: int
    num_samples: int
    fingerprint: str


def inspect_audio(path: str | os.PathLike) -> AudioInfo:
    """Decodes the whole file in bounded memory; raises BadAudio with the reason when it cannot be
    used.
    """
    digest = hashlib.blake2b(digest_size=16)
    num_samples = 0
    with _open(path) as file:
        for block in _blocks(path, file, None):
            digest.update(block.tobytes())
            num_samples += len(block)
        if num_samples == 0:
            raise BadAudio(path, "holds no audio samples")
        if _resampler_kernel(file.samplerate, SAMPLING_RATE) > MAX_RESAMPLER_KERNEL:
            raise BadAudio(
                path,
                f"sampling rate {file.samplerate} Hz cannot be converted to {SAMPLING_RATE} Hz",
            )
        return AudioInfo(
            duration=num_samples / file.samplerate,
            sampling_rate=file.samplerate,
            channels=file.channels,
            num_samples=num_samples,
            fingerprint=digest.hexdigest(),
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
    with _open(path) as file:
        source_rate = file.samplerate
        if _resampler_kernel(source_rate, sampling_rate) > MAX_RESAMPLER_KERNEL:
            raise BadAudio(
                path, f"sampling rate {source_rate} Hz cannot be converted to {sampling_rate} Hz"
            )
        wanted = None if duration is None else round(duration * source_rate)
        if offset > 0:
            _seek(path, file, round(offset * source_rate))
        blocks = [block.mean(axis=1, dtype=np.float32) for block in _blocks(path, file, wanted)]
    samples = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
    if len(samples) == 0:
        raise BadAudio(
            path, "holds no audio samples" if offset == 0 else f"holds no audio after {offset} s"
        )
    if wanted is not None and wanted - len(samples) > MIN_DURATION * source_rate:
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


def resample(samples: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """(N,) float32 at `source_rate` -> (ceil(N * target_rate / source_rate),) float32 at
    `target_rate`.

    The kernels are cached per pair of rates and process; two threads that meet at an empty cache
    both compute the same kernel.
    """
    if source_rate == target_rate:
        return samples
    import torch
    from lhotse.augmentation import get_or_create_resampler

    with torch.no_grad(), one_thread():
        return get_or_create_resampler(source_rate, target_rate)(torch.from_numpy(samples)).numpy()


@contextmanager
def one_thread():
    """PyTorch on one CPU thread inside the block.

    Convolutions and matrix products of a short clip differ in the last bit with the number of
    threads; samples and features must be the same in a loader's worker, which has one, and in the
    main process.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _resampler_kernel(source_rate: int, target_rate: int) -> int:
    """Elements of the sinc kernel: one filter per output phase, each as long as the rates'
    period.
    """
    if source_rate == target_rate:
        return 0
    divisor = math.gcd(source_rate, target_rate)
    return (source_rate // divisor) * (target_rate // divisor)


def _open(path: str | os.PathLike) -> soundfile.SoundFile:
    if not Path(path).is_file():  # never opens what could block, as a FIFO does
        raise BadAudio(path, _why_no_file(Path(path)))
    if os.path.getsize(path) == 0:
        raise BadAudio(path, "file is empty (0 bytes)")
    try:
        file = soundfile.SoundFile(os.fspath(path))
    except soundfile.LibsndfileError as error:
        kind = _kind_of(Path(path))
        reason = f"not audio: looks like {kind}" if kind else "is not readable audio"
        raise BadAudio(path, f"{reason} ({_message(error)})") from error
    if file.frames >= UNKNOWN_LENGTH:
        file.close()
        raise BadAudio(
            path, "announces no length, as FLAC streams do; libsndfile needs one: encode it again"
        )
    return file


def _why_no_file(path: Path) -> str:
    if not path.exists():
        return "file does not exist"
    return "is a folder" if path.is_dir() else "is no regular file, but a device, pipe or socket"


def _kind_of(path: Path) -> str | None:
    """What a file that is no audio is, by how it begins, and what to do; None if unknown."""
    with open(path, "rb") as file:
        start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((kind for form, kind in NOT_AUDIO if re.match(form, start)), None)


def _seek(path: str | os.PathLike, file: soundfile.SoundFile, start: int) -> None:
    try:
        file.seek(start)
    except soundfile.LibsndfileError as error:
        raise BadAudio(
            path, f"has no audio at {start / file.samplerate:.3f} s ({_message(error)})"
        ) from error


def _blocks(path: str | os.PathLike, file: soundfile.SoundFile, wanted: int | None):
    """Yields float32 (n, channels) blocks up to `wanted` samples or the real end; raises
    BadAudio.
    """
    done = 0
    while wanted is None or done < wanted:
        size = BLOCK if wanted is None else min(BLOCK, wanted - done)
        try:
            block = file.read(size, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise BadAudio(
                path, f"damaged: cannot be decoded to its end ({_message(error)})"
            ) from error
        if len(block) == 0:
            return
        if not np.isfinite(block).all():
            raise BadAudio(
                path, f"holds {np.count_nonzero(~np.isfinite(block))} NaN or infinite samples"
            )
        done += len(block)
        yield block


def _message(error: soundfile.LibsndfileError) -> str:
    return str(error.error_string).strip().rstrip(".") or f"libsndfile error {error.code}"
