"""Ogg files that hold several recordings one after the other, as internet radio writes them and
joining files does: each is an Ogg file of its own, and libsndfile reads the first alone.
"""

import io
import mmap
import os
import re

import numpy as np

from captionstew.data.decoders.contract import BadAudio, Refused
from captionstew.data.decoders.libsndfile import Libsndfile

FIRST_PAGE = re.compile(rb"OggS\x00[\x02\x03\x06\x07]")  # of a stream


def ogg_links(file: int) -> list[int]:
    """Where the recordings of an Ogg file (its descriptor) begin. The streams of one recording,
    such as sound and pictures, begin next to each other.
    """
    links, end = [], None
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as content:
        for page in FIRST_PAGE.finditer(content):
            start = page.start()
            if start + 27 > len(content):  # cut off
                break
            segments = content[start + 26]
            body = sum(content[start + 27 : start + 27 + segments])
            if start != end:
                links.append(start)
            end = start + 27 + segments + body
    return links


class ChainedOgg:
    """The recordings of an Ogg file as one; see `contract.Decoder`."""

    name = "libsndfile"

    def __init__(self, path: str | os.PathLike, links: list[int]) -> None:
        ends = [*links[1:], os.path.getsize(path)]
        self._all: list[Libsndfile] = []
        try:
            for start, end in zip(links, ends):
                self._all.append(Libsndfile(path, Part(path, start, end), silent=True))
        except Refused as error:
            raise BadAudio(path, f"holds several recordings, one unreadable ({error})") from error
        kinds = sorted({(part.sampling_rate, part.channels) for part in self._all})
        if len(kinds) > 1:
            listed = ", ".join(f"{rate} Hz with {channels} channels" for rate, channels in kinds)
            raise BadAudio(path, f"holds recordings of different kinds ({listed}); split it")
        self.sampling_rate, self.channels = kinds[0]
        self.duration: float | None = sum(part.duration or 0.0 for part in self._all)
        self._rest = list(self._all)

    def skip_to(self, sample: int) -> None:
        while len(self._rest) > 1 and sample >= self._rest[0].file.frames:
            sample -= self._rest.pop(0).file.frames
        self._rest[0].skip_to(sample)

    def read(self, count: int) -> np.ndarray:
        block = self._rest[0].read(count)
        while len(block) == 0 and len(self._rest) > 1:
            self._rest.pop(0)
            block = self._rest[0].read(count)
        return block

    def close(self) -> None:
        for part in self._all:
            part.close()


class Part(io.RawIOBase):
    """Bytes `start` to `end` of the file at `path`, as a file."""

    def __init__(self, path: str | os.PathLike, start: int, end: int) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - closed with this
        self._start, self._end = start, end
        self._file.seek(start)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: self._start, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._end}
        return self._file.seek(base[whence] + offset) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start

    def readinto(self, buffer) -> int:
        left = max(0, self._end - self._file.tell())
        return self._file.readinto(memoryview(buffer)[:left])

    def close(self) -> None:
        self._file.close()
        super().close()
