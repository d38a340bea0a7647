"""The first decoder, libsndfile: WAV, AIFF, FLAC, Ogg, MP3 and their like."""

import io
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache

import numpy as np
import soundfile

from captionstew.data.decoders.contract import BadAudio, Refused, refuse_early_end

BLOCK = 1 << 16  # samples skipped at a time
_one_at_a_time = threading.RLock()  # standard error belongs to the whole process


class Libsndfile:
    """A file that libsndfile opens; see `contract.Decoder`.

    Args:
      content: what to read where it is not all of the file at `path`.
      silent: its decoder is known to print nothing.

    Raises:
      Refused: it does not open.
    """

    name = "libsndfile"

    def __init__(
        self, path: str | os.PathLike, content: io.RawIOBase | None = None, silent: bool = False
    ) -> None:
        self.path = path
        self._content = content
        self._silent = silent
        try:
            with self._messages():
                self.file = soundfile.SoundFile(content or os.fspath(path))
        except soundfile.LibsndfileError as error:
            raise Refused(_message(error)) from error
        if self.file.format == "RAW":  # what it takes anything for whose name ends in .au
            self.file.close()
            raise Refused("Format not recognised")
        self.sampling_rate = self.file.samplerate
        self.channels = self.file.channels
        self.duration: float | None = self.file.frames / self.file.samplerate
        self._at = 0

    @property
    def misplaces(self) -> bool:
        """Whether libsndfile finds other places than those asked for: of MP3 with variable bit
        rates, and near the end of Vorbis, it does.
        """
        return self.file.subtype.startswith(("MPEG", "VORBIS"))

    def skip_to(self, sample: int) -> None:
        if not self.misplaces:
            try:
                self.file.seek(sample)
                self._at = sample
                return
            except soundfile.LibsndfileError:  # some formats cannot; nothing can behind the end
                pass
        while self._at < sample and len(self.read(min(BLOCK, sample - self._at))):
            pass

    def read(self, count: int) -> np.ndarray:
        try:
            with self._messages():
                block = self.file.read(count, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            reason = f"damaged: cannot be decoded to its end ({_message(error)})"
            raise BadAudio(self.path, reason) from error
        if len(block) == 0:
            rate = self.sampling_rate
            refuse_early_end(self.path, self._at / rate, self.file.frames / rate)
        self._at += len(block)
        return block

    def close(self) -> None:
        with self._messages():
            self.file.close()
        if self._content is not None:
            self._content.close()

    def _messages(self):
        return nullcontext() if self._silent else _named_messages(self.path)


@contextmanager
def _named_messages(path: str | os.PathLike) -> Iterator[None]:
    """What C code prints to standard error inside the block is logged, with the file's name."""
    with _one_at_a_time:
        try:
            terminal = os.dup(2)
        except OSError:  # a service without standard error
            yield
            return
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)  # what does not fit is lost, nobody waits
        os.dup2(writer, 2)
        os.close(writer)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            with open(reader, "rb", buffering=0) as caught:
                text = (caught.read(4096) or b"").decode(errors="replace")
    if text.strip():
        _warn_once(str(path), " ".join(text.split()))


@lru_cache(maxsize=4096)
def _warn_once(path: str, message: str) -> None:
    logging.warning("%s: %s", path, message)


def _message(error: soundfile.LibsndfileError) -> str:
    text = str(error.error_string).strip().rstrip(".") or f"libsndfile error {error.code}"
    # Said of files that are there, when libmpg123 finds no frame in them.
    return "Format not recognised" if text.startswith("File does not exist") else text
