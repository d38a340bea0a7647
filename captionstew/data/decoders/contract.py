"""What every decoder offers, and the error of a file that cannot be used."""

import os
from typing import Protocol

import numpy as np

from captionstew.errors import UserError

# Seconds of audio that may be missing without a word: manifests round, tags follow the audio.
FORGIVEN = 0.25


class BadAudio(UserError):
    """An audio file that cannot be used. Attributes: `path` and `reason` (one line)."""

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(path, reason)  # both, so that the exception survives a process boundary
        self.path = str(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Refused(Exception):
    """A decoder cannot open a file, which another one may; the message says why."""


class Decoder(Protocol):
    """An open file, read from its beginning on. All methods raise BadAudio.

    Attributes:
      name: of the library that decodes.
      sampling_rate: Hz of what `read` gives.
      channels: their number.
      duration: seconds as announced, where that can be trusted.
    """

    name: str
    sampling_rate: int
    channels: int
    duration: float | None

    def skip_to(self, sample: int) -> None:
        """The next `read` begins at this sample per channel; called before the first `read`."""

    def read(self, count: int) -> np.ndarray:
        """(n, channels) float32, n <= count; n is 0 at the end alone."""

    def close(self) -> None:
        """Gives the file back."""


def refuse_early_end(path: str | os.PathLike, found: float, announced: float) -> None:
    """Raises BadAudio for a file that ends more than a moment before it says (both in seconds)."""
    if announced - found > FORGIVEN:
        raise BadAudio(
            path,
            f"ends after {found:.3f} s of the {announced:.3f} s that its header announces: damaged"
            " or cut off",
        )
