"""Whether the length that libsndfile announces is that of the whole file.

libsndfile reads as far as a header says, or as it guesses: of files that were never closed, of
streams and of joined files it reads a part, and nobody is told. Where there is doubt another
decoder reads the file. The checks look at a few bytes: every clip of a batch is checked.
"""

import enum
import os
import re
import struct

import soundfile

from captionstew.data.decoders.contract import FORGIVEN

UNKNOWN = 1 << 62  # samples; what libsndfile says of FLAC streams without a length
BYTES_PER_SAMPLE = {
    "PCM_S8": 1, "PCM_U8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4,
    "FLOAT": 4, "DOUBLE": 8,
}  # fmt: skip
# Formats of chunks: bytes ahead of the first, a chunk's head (name, size), divisor of all sizes.
CHUNKS = {
    "WAV": (12, "<4sI", 2),
    "WAVEX": (12, "<4sI", 2),
    "RF64": (12, "<4sI", 2),
    "AIFF": (12, ">4sI", 2),
    "CAF": (8, ">4sq", 1),
}
LONGEST_LYRICS = 1 << 16  # bytes
MP3_HEAD = 256  # bytes of the first frame in which its header with the length stands


class Doubt(enum.Enum):
    """Why an announced length is not that of the whole file."""

    ABSENT = "announces no length"
    GUESSED = "announces no length, and bit rates differ"
    BYTES = "holds more than its header announces"


def doubt_about(content: int, size: int, file: soundfile.SoundFile) -> Doubt | None:
    """Why `file`, which libsndfile opened, may end before its audio does; or None.

    Args:
      content: descriptor of the same file, open for reading, of `size` bytes.
    """
    if file.frames >= UNKNOWN:
        return Doubt.ABSENT
    if file.format == "FLAC":
        last = _last_flac_sample(content, size)
        return Doubt.BYTES if last >= max(1, file.frames) else None
    if file.format == "MP3":
        return _doubt_about_mp3(content, size)
    return Doubt.BYTES if _unread_bytes(content, size, file) else None


def _last_flac_sample(file: int, size: int) -> int:
    """Number of the first sample of the last frame (RFC 9639, 9.1); 0 if none is found."""
    head = os.pread(file, 26, 0)
    if head[:4] != b"fLaC":
        return 0
    block_size = int.from_bytes(head[10:12])
    longest = int.from_bytes(head[15:18]) or 1 << 16
    start = max(42, size - longest - 256)
    tail = os.pread(file, size - start, start)
    at = len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        if tail[at + 1 : at + 2] in (b"\xf8", b"\xf9"):
            number = _flac_frame_number(tail[at : at + 16])
            if number is not None:
                return number * (block_size if tail[at + 1] == 0xF8 else 1)
    return 0


def _flac_frame_number(header: bytes) -> int | None:
    """What a frame header numbers (frames or samples); None if these bytes are no header."""
    if len(header) < 16 or header[3] & 1:
        return None
    ones = 8 - (header[4] ^ 0xFF).bit_length()  # as UTF-8 says how many bytes follow
    if ones in (1, 8):
        return None
    follow = max(0, ones - 1)
    number = header[4] & (0x7F >> ones)
    for byte in header[5 : 5 + follow]:
        number = number << 6 | byte & 0x3F
    extra = {6: 1, 7: 2}.get(header[2] >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
    end = 5 + follow + extra
    return number if _crc8(header[:end]) == header[end] else None


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 0x07 if value & 0x80 else value << 1) & 0xFF
    return value


def _doubt_about_mp3(file: int, size: int) -> Doubt | None:
    """By the header that encoders put into the first frame: "Info", or "Xing" for variable rates,
    which flags, the number of frames and the number of bytes follow.
    """
    start = after_tags(file, 0, size)
    found = re.search(rb"(?:Xing|Info)\0\0\0(.)(.{4})(.{4})", os.pread(file, MP3_HEAD, start), re.S)
    if found is None or found[1][0] & 3 != 3:
        return Doubt.GUESSED
    frames, length = int.from_bytes(found[2]), int.from_bytes(found[3])
    rest = size - after_padding(file, start + length, size)
    # A frame lasts 24 to 72 ms.
    return Doubt.BYTES if rest > FORGIVEN / 0.024 * length / max(1, frames) else None


def after_tags(file: int, at: int, end: int) -> int:
    """Where the tags that begin at a place end, `end` at most; audio may follow them."""
    while at < end and (length := _tag_length(os.pread(file, LONGEST_LYRICS, at))):
        at += length
    return min(at, end)


def after_padding(file: int, at: int, end: int) -> int:
    """The same with zeros, of which the end of a file may have any number."""
    while (here := after_tags(file, at, end)) < end:
        data = os.pread(file, LONGEST_LYRICS, here)
        at = here + len(data) - len(data.lstrip(b"\0"))
        if at == here:
            break
    return min(here, end)


def _tag_length(data: bytes) -> int:
    """Of the one tag that `data` begins with; 0 if it begins with none."""
    if data[:3] == b"ID3" and len(data) >= 10:
        shifted = zip(data[6:10], (21, 14, 7, 0))
        return 10 + sum((byte & 0x7F) << shift for byte, shift in shifted)
    if data[:4] == b"TAG+":
        return 227
    if data[:3] == b"TAG":
        return 128
    if data[:8] == b"APETAGEX" and len(data) >= 32:
        return 32 + int.from_bytes(data[12:16], "little")
    if data[:11] == b"LYRICSBEGIN":
        return max(data.find(b"LYRICS200"), data.find(b"LYRICSEND")) + 9
    return 0


def _unread_bytes(file: int, size: int, opened: soundfile.SoundFile) -> bool:
    """Whether more than a moment of audio, and nothing else, may follow the announced samples."""
    width = BYTES_PER_SAMPLE.get(opened.subtype, 0) * opened.channels
    forgiven = FORGIVEN * opened.samplerate * (width or 1)
    if width and size - opened.frames * width <= forgiven:
        return False
    if opened.format not in CHUNKS:
        return bool(width)
    at, head, divisor = CHUNKS[opened.format]
    length = struct.calcsize(head)
    after_audio = False
    while size - at > max(forgiven, length):
        name, chunk = struct.unpack(head, os.pread(file, length, at))
        if after_audio:
            fits = name.isascii() and name.decode().isprintable() and 0 <= chunk <= size - at
            return not (fits or name.startswith((b"LIST", b"ID3", b"id3", b"bext")))
        after_audio = name in (b"data", b"SSND")
        if after_audio and opened.format == "RF64":
            chunk = opened.frames * width
        at += length + chunk + -chunk % divisor
    return False
