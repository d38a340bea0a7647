"""The second decoder, FFmpeg through PyAV: MP4, AAC, WebM, WMA, and what libsndfile cannot be
trusted with.

FFmpeg goes on after damage. What is lost on the way is counted here: a packet that cannot be
decoded becomes silence, and more than a quarter of a second of such packets, or of bytes that no
packet holds, makes a file bad.
"""

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple, cast

import av
import numpy as np

from captionstew.data.decoders.contract import FORGIVEN, BadAudio, Refused, refuse_early_end
from captionstew.data.decoders.lengths import Doubt, after_padding, after_tags

# FFmpeg also opens play lists, which name other files and hosts, and pictures and text.
FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,eac3,flac,flv,matroska,mov,mp3,mpc,mpc8,nistsphere,ogg"
    ",tak,tta,voc,w64,wav,wv"
)
# Of these every byte is in a packet, tags excepted: what is in none was lost.
WITHOUT_CONTAINER = ("aac", "ac3", "amr", "eac3", "flac", "mp3")
# These say how long they last; of others FFmpeg guesses from the bit rate.
WITH_DURATION = ("asf", "caf", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2")
# Seconds decoded ahead of the place that is asked for: lossy codecs build on what came before.
RUN_UP = 1.0
REMEMBERING = ("adpcm", "amr", "g72", "gsm")  # these on all of it


class Block(NamedTuple):
    """Decoded samples (n, channels), and their time in ticks of the stream if it is known."""

    samples: np.ndarray
    pts: int | None


class FFmpeg:
    """A file that FFmpeg opens; see `contract.Decoder`.

    Args:
      doubt: why libsndfile, which opens the file, is not trusted with it.

    Raises:
      Refused: it does not open.
    """

    name = "ffmpeg"

    def __init__(self, path: str | os.PathLike, doubt: Doubt | None = None) -> None:
        self.path = path
        self._doubt = doubt
        self.sampling_rate = self.channels = 0  # until the first frame tells
        self._left = np.zeros((0, 0), dtype=np.float32)  # decoded, not read
        self._at = 0  # sample behind what was decoded
        self._open()
        self._first = self._start()
        self.duration: float | None = None  # many headers announce a guess

    def skip_to(self, sample: int) -> None:
        self._jump(sample)
        while self._at - len(self._left) < sample:
            behind = self._at - sample
            self._left = self._left[len(self._left) - behind :] if behind > 0 else self._next()
            if len(self._left) == 0:
                return

    def read(self, count: int) -> np.ndarray:
        parts, length = [self._left], len(self._left)
        while length < count and len(samples := self._next()):
            parts.append(samples)
            length += len(samples)
        samples = np.concatenate(parts)
        self._left = samples[count:]
        return samples[:count]

    def close(self) -> None:
        self._container.close()

    def _open(self) -> None:
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
        if self._doubt is Doubt.BYTES:
            options["ignore_length"] = "1"  # of WAV
        try:
            # Behind its protocol a name is a name, whatever it looks like.
            self._container = av.open(f"file:{os.fsdecode(self.path)}", options=options)
        except (av.FFmpegError, ValueError) as error:
            raise Refused(_message(error)) from error
        if not self._container.streams.audio:
            self._container.close()
            raise BadAudio(self.path, "holds no audio track")
        self._stream = self._container.streams.audio[0]
        if self._stream.codec_context is None:
            self._container.close()
            raise BadAudio(self.path, "its audio is of a codec that FFmpeg does not know")
        self._codec = self._stream.codec_context.name

    def _start(self) -> Block:
        """Begins with the first frame of the file."""
        self._blocks = self._decode()
        first = next(self._blocks, None)
        if first is None:
            raise Refused("none of its audio can be decoded")
        self._left = first.samples
        self._at = len(self._left)
        return first

    def _next(self) -> np.ndarray:
        """The next block's samples; none at the end."""
        block = next(self._blocks, None)
        if block is None:
            return np.zeros((0, self.channels), dtype=np.float32)
        self._at += len(block.samples)
        return block.samples

    def _jump(self, sample: int) -> None:
        """Goes to a frame ahead of `sample` whose number in the file is known, if one is found."""
        start = sample - round(RUN_UP * self.sampling_rate)
        if start <= self._at or self._first.pts is None or self._codec.startswith(REMEMBERING):
            return
        try:
            ticks = self._first.pts + int(start / self._tick())
            self._container.seek(ticks, stream=self._stream)
            self._blocks = self._decode()
            block = next(self._blocks, None)
        except (av.FFmpegError, BadAudio):  # perhaps behind the end: found out below
            block = None
        place = None if block is None else self._place(block)
        if block is not None and place is not None and place <= sample:
            self._left, self._at = block.samples, place + len(block.samples)
        else:
            self._container.close()
            self._open()
            self._start()

    def _tick(self) -> Fraction:
        """Samples in a unit of the stream's time."""
        assert self._stream.time_base is not None
        return self._stream.time_base * self.sampling_rate

    def _place(self, block: Block) -> int | None:
        """Number of a block's first sample; None if its time does not tell.

        Times in milliseconds (Matroska, WMA) are rounded: the place is the nearest whole number of
        frames, where all frames are of one size, which Vorbis' are not.
        """
        if block.pts is None or self._first.pts is None:
            return None
        tick = self._tick()
        at = (block.pts - self._first.pts) * tick
        if tick <= 1:
            return round(at)
        origin, size = len(self._first.samples), len(block.samples)
        place = origin + round((at - origin) / size) * size
        constant = self._codec != "vorbis" and size > 4 * tick
        return place if constant and abs(place - at) <= 2 * tick else None

    def _decode(self) -> Iterator[Block]:
        """Blocks from here to the end."""
        losses = Losses(self.path)
        loose = self._container.format.name in WITHOUT_CONTAINER
        end = None  # byte behind the last packet
        packets = self._container.demux(self._stream)
        while (packet := self._packet(packets)) is not None:
            if packet.size and packet.pos is not None:
                if loose and end is not None and packet.pos > end:
                    losses.add(_behind(after_tags, self.path, end, packet.pos))
                end = packet.pos + packet.size
            try:
                frames = packet.decode()
            except av.FFmpegError:
                tagged = loose and packet.pos is not None  # a tag may be in front of the frame
                start = packet.pos or 0
                losses.add(
                    _behind(after_tags, self.path, start, start + packet.size)
                    if tagged
                    else packet.size
                )
                silence = round((packet.duration or 0) * self._tick())
                if silence:
                    yield Block(np.zeros((silence, self.channels), dtype=np.float32), None)
                continue
            losses.used += packet.size
            for frame in cast(list[av.AudioFrame], frames):
                losses.played += frame.samples / frame.sample_rate
                if frame.samples:
                    yield Block(self._samples(frame), frame.pts)
        self._refuse_early_end()
        if end is not None and (loose or self._doubt is Doubt.BYTES):
            kind = "damaged" if self._doubt is None else self._doubt.value
            losses.add(_behind(after_padding, self.path, end), kind)

    def _packet(self, packets: Iterator[av.Packet]) -> av.Packet | None:
        try:
            return next(packets, None)
        except av.FFmpegError as error:
            reason = f"damaged: cannot be decoded to its end ({_message(error)})"
            raise BadAudio(self.path, reason) from error

    def _samples(self, frame: av.AudioFrame) -> np.ndarray:
        """(n, channels) float32 within the scale of libsndfile's."""
        rate, channels = frame.sample_rate, frame.layout.nb_channels
        if not self.channels:
            self.sampling_rate, self.channels = rate, channels
        elif (rate, channels) != (self.sampling_rate, self.channels):
            raise BadAudio(
                self.path,
                f"changes from {self.sampling_rate} Hz and {self.channels} channels to {rate} Hz"
                f" and {channels} after {self._at / self.sampling_rate:.3f} s",
            )
        samples: np.ndarray[Any, Any] = frame.to_ndarray()
        samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
        if samples.dtype == np.uint8:
            return (samples.astype(np.float32) - 128) / 128
        if samples.dtype.kind == "i":
            return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
        return samples.astype(np.float32)

    def _refuse_early_end(self) -> None:
        container = self._container
        if container.format.name not in WITH_DURATION:
            return
        announced = (self._stream.duration or 0) * self._tick() / self.sampling_rate
        if len(container.streams) == 1:  # pictures may last longer
            announced = announced or Fraction(container.duration or 0, av.time_base)
        refuse_early_end(self.path, self._at / self.sampling_rate, float(announced))


class Losses:
    """What of a file could not be decoded, in seconds at its mean bit rate."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = path
        self.lost = self.used = 0  # bytes
        self.played = 0.0  # seconds

    def add(self, size: int, kind: str = "damaged") -> None:
        """Raises BadAudio when it becomes more than is forgiven."""
        self.lost += size
        if self.lost * self.played > FORGIVEN * self.used:
            raise BadAudio(
                self.path,
                f"{kind}: {self.lost} bytes, of {self.lost * self.played / self.used:.3f} s,"
                " cannot be decoded",
            )


def _behind(
    skip: Callable[[int, int, int], int],
    path: str | os.PathLike,
    start: int,
    end: int | None = None,
) -> int:
    """Bytes from `start` to `end` (of the file if not given) that `skip` leaves."""
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size if end is None else end
        return end - skip(file.fileno(), start, end)


def _message(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")
