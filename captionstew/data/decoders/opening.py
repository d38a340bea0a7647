"""Which decoder reads a file: libsndfile where it opens it and can be trusted, else FFmpeg."""

import os
import re
import stat

from captionstew.data.decoders.chained import ChainedOgg, ogg_links
from captionstew.data.decoders.contract import BadAudio, Decoder, Refused
from captionstew.data.decoders.lengths import Doubt, doubt_about
from captionstew.data.decoders.libsndfile import Libsndfile

SILENT = (b"RIFF", b"fLaC", b"OggS", b"FORM")  # how files begin of which libmpg123 gets none
# What downloads leave in the place of audio, by how a file begins: what it is, what to do.
NOT_AUDIO = (
    (rb"<(!doctype\s+html|html|head|body)", "an HTML page; download the file again"),
    (rb"version https://git-lfs", "a Git LFS pointer; fetch the file with `git lfs pull`"),
    (rb"<\?xml|<error", "an XML error message; download the file again"),
    (rb"[{\[]\s*[\"{\[]", "JSON, perhaps an error message; download the file again"),
)


def open_audio(path: str | os.PathLike, skip: bool = False) -> Decoder:
    """A decoder before the first sample of a file; raises BadAudio with the reason.

    Args:
      skip: the caller will call `skip_to`.
    """
    try:
        os.fsdecode(path).encode()
        status = os.stat(path)
    except UnicodeEncodeError as error:
        raise BadAudio(path, "its name is not UTF-8: rename it") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadAudio(path, "file does not exist") from error
    except OSError as error:
        raise BadAudio(path, f"cannot be opened ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):  # never opens what could block, as a FIFO does
        folder = stat.S_ISDIR(status.st_mode)
        raise BadAudio(
            path, "is a folder" if folder else "is no regular file, but a device, pipe or socket"
        )
    if status.st_size == 0:
        raise BadAudio(path, "file is empty (0 bytes)")
    try:
        content = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise BadAudio(path, f"cannot be opened ({error.strerror})") from error
    try:
        return _open(path, content, status.st_size, skip)
    finally:
        os.close(content)


def _open(path: str | os.PathLike, content: int, size: int, skip: bool) -> Decoder:
    start = os.pread(content, 512, 0)
    try:
        first = Libsndfile(path, silent=start.startswith(SILENT))
    except Refused as refused:
        kind = _kind_of(start)
        if kind:
            raise BadAudio(path, f"not audio: looks like {kind}") from refused
        return _ffmpeg(path, None, f"is not readable audio ({refused})")
    if first.file.format == "OGG" and len(links := ogg_links(content)) > 1:
        first.close()
        return ChainedOgg(path, links)
    doubt = doubt_about(content, size, first.file)
    if doubt is None and not (skip and first.misplaces):
        return first
    first.close()
    reason = f"{doubt.value}, and FFmpeg cannot read it" if doubt else "FFmpeg cannot read it"
    return _ffmpeg(path, doubt, reason)


def _ffmpeg(path: str | os.PathLike, doubt: Doubt | None, reason: str) -> Decoder:
    from captionstew.data.decoders.ffmpeg import FFmpeg  # slow to import, and seldom needed

    try:
        return FFmpeg(path, doubt)
    except Refused as refused:
        raise BadAudio(path, reason) from refused


def _kind_of(start: bytes) -> str | None:
    """What a file that is no audio is, by how it begins, and what to do; None if unknown."""
    start = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((kind for form, kind in NOT_AUDIO if re.match(form, start)), None)
