"""Audio files as batches of waveforms, whatever is broken among them.

B pieces, N samples. A recording longer than 60 s, which no model was trained on, is taken in pieces
of equal length, without overlap. One longer than LONG seconds is never in memory as a whole: its
pieces are decoded one by one, each with MARGIN seconds on either side for the resampler, which are
cut off again.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from captionstew.data.audio import (
    AUDIO_ENDINGS,
    MAX_DURATION,
    BadAudio,
    audio_duration,
    read_audio,
)
from captionstew.data.batches.loader import Loader

LONG = 600.0  # seconds
MARGIN = 0.1  # seconds; the resampler's kernel is shorter
FEWEST_BYTES = 500  # of a second of audio: half of what speech codecs take


@dataclass(frozen=True)
class Piece:
    """A part of a file: `samples` (N,) from `start` seconds on."""

    file: str
    start: float
    samples: Tensor


@dataclass
class AudioFiles:
    """The files to work on, and, as they are read, those that cannot be used with the reason.

    Attributes:
      files: paths, every file once.
      failed: reason by path; complete when `batches` has been read to its end.
    """

    files: list[str]
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def used(self) -> list[str]:
        """Files that could be read, in the order of `files`."""
        return [file for file in self.files if file not in self.failed]

    def raise_if_any_failed(self) -> None:
        """Raises BadAudio for the first file that could not be read."""
        for file, reason in self.failed.items():
            raise BadAudio(file, reason)

    def batches(
        self, sampling_rate: int, max_duration: float, num_workers: int
    ) -> Iterator[tuple[list[Piece], Tensor, list[int]]]:
        """-> pieces, waveforms (B, N) zero-padded, their numbers of samples

        Args:
          sampling_rate: Hz of the waveforms.
          max_duration: seconds of audio per batch, padding included; a single piece may have more.
          num_workers: reading processes (0: read here).
        """
        # Clips of similar length belong together; the size on disk is known without decoding.
        files = sorted(self.files, key=_size)
        parts = [part for file in files for part in _parts(file)]
        loader = Loader(_Samples(parts, sampling_rate), num_workers, LONG * 4 * sampling_rate)
        pieces: list[Piece] = []
        for part, samples in zip(parts, loader):
            if isinstance(samples, str):
                self.failed[part.file] = samples
                continue
            for piece in _pieces(part, samples, sampling_rate):
                longest = max(len(other.samples) for other in (*pieces, piece))
                if pieces and (len(pieces) + 1) * longest > max_duration * sampling_rate:
                    yield _padded(pieces)
                    pieces = []
                pieces.append(piece)
        if pieces:
            yield _padded(pieces)


def find_audio(paths: Sequence[str | Path]) -> list[str]:
    """Files as they are named, folders as the audio files below them; sorted by folder, every file
    once.

    Raises:
      ValueError: nothing was named, or a folder without audio files.
    """
    found: dict[str, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            found[str(path)] = None
            continue
        below = sorted(
            str(file) for file in path.rglob("*") if file.suffix.lower() in AUDIO_ENDINGS
        )
        if not below:
            raise ValueError(f"{path}: no audio files below it ({', '.join(AUDIO_ENDINGS)})")
        found.update(dict.fromkeys(below))
    if not found:
        raise ValueError("no audio files given")
    return list(found)


@dataclass(frozen=True)
class _Part:
    """A whole file, or of a long one `duration` seconds from `start` on."""

    file: str
    start: float = 0.0
    duration: float | None = None

    def read(self, sampling_rate: int) -> Tensor:
        """(N,)"""
        if self.duration is None:
            return torch.from_numpy(read_audio(self.file, sampling_rate=sampling_rate))
        # From a whole second on: there the samples of any two rates fall together.
        begin = max(0, math.floor(self.start - MARGIN))
        lead, count = (round(x * sampling_rate) for x in (self.start - begin, self.duration))
        wanted = self.start - begin + self.duration + MARGIN
        samples = read_audio(self.file, begin, wanted, sampling_rate)
        return torch.from_numpy(samples[lead : lead + count])


def _parts(file: str) -> list[_Part]:
    """The file, or the pieces of a long one."""
    seconds = _seconds(file)
    if seconds <= LONG:
        return [_Part(file)]
    count = math.ceil(seconds / MAX_DURATION)
    return [_Part(file, number * seconds / count, seconds / count) for number in range(count)]


def _seconds(file: str) -> float:
    """Length of a file that is large enough to be a long one; 0 for others, and where it cannot be
    opened, of which reading tells the reason.
    """
    if _size(file) < LONG * FEWEST_BYTES:
        return 0.0
    try:
        return audio_duration(file)
    except BadAudio:
        return 0.0


class _Samples(Dataset):
    """Samples (N,) of each part, or the reason why there are none."""

    def __init__(self, parts: Sequence[_Part], sampling_rate: int) -> None:
        self.parts = parts
        self.sampling_rate = sampling_rate

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return self.parts[index].read(self.sampling_rate)
        except BadAudio as error:
            return error.reason


def _size(file: str) -> int:
    try:
        return os.path.getsize(file)
    except OSError:
        return 0  # reading it will say why


def _pieces(part: _Part, samples: Tensor, sampling_rate: int) -> list[Piece]:
    if part.duration is not None:
        return [Piece(part.file, part.start, samples)]
    count = math.ceil(len(samples) / (MAX_DURATION * sampling_rate))
    parts = samples.tensor_split(count)
    starts = [sum(map(len, parts[:number])) / sampling_rate for number in range(count)]
    return [Piece(part.file, start, piece) for start, piece in zip(starts, parts)]


def _padded(pieces: list[Piece]) -> tuple[list[Piece], Tensor, list[int]]:
    waveforms = pad_sequence([piece.samples for piece in pieces], batch_first=True)
    return pieces, waveforms, [len(piece.samples) for piece in pieces]
