"""What the names of audio files say: which clip of which recording, as archives and downloaders
write it.

    Yb0RFKhbpFJA.wav  b0RFKhbpFJA_30.flac  b0RFKhbpFJA_000030.mp4  b0RFKhbpFJA_30_40.wav
    b0RFKhbpFJA_30.000_40.000.wav  b0RFKhbpFJA_30000_40000.wav (milliseconds)
    [b0RFKhbpFJA]-[30-40].wav  A title [b0RFKhbpFJA].opus  A title-b0RFKhbpFJA.webm
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from captionstew.corpora.keys import IdentityError, name_stem, paraspeech_key, without_ending

_ID = r"([A-Za-z0-9_-]{11})"
_TIME = r"\d+(?:\.\d+)?"
_TIMES = rf"(?:[-_]\[?({_TIME})(?:[-_]({_TIME}))?\]?)?(?:-\d)?"
_YOUTUBE_FORMS = (
    re.compile(rf"Y?{_ID}{_TIMES}"),
    re.compile(rf"(?:.*\s)?\[{_ID}\]{_TIMES}"),  # yt-dlp, and MusicCaps' downloaders
    re.compile(rf".+-{_ID}()()"),  # youtube-dl
)
SEGMENT = 10.0  # seconds, of AudioSet and all that is made of it
LONGEST_CUT = 1_000  # two times farther apart than this many seconds are milliseconds

_VOX = re.compile(rf"(id\d{{5}})[/_]{_ID}[/_](\d{{5}})(_voicefixer)?")
FIRST_OF_VOXCELEB1 = "id10001"  # speakers are numbered through both corpora
_EXPRESSO = re.compile(r"(?:.*_)?(ex\d\d(?:-ex\d\d)?_[a-z].*)")
_JAMENDO = re.compile(r"(?:track_)?0*(\d+)(?:_(\d+)(?:_\d+)?)?(?:\.low)?")


def youtube_names(path: str) -> Iterator[str]:
    """`yt:<id>:<second>`, `yt:<id>:*` of a file whose name gives no start, and `segment:<id>` of
    one that can be AudioSet's segment of the video.
    """
    stem = name_stem(path)
    match = next((m for form in _YOUTUBE_FORMS if (m := form.fullmatch(stem))), None)
    if match is None:
        return
    video, start, end = match.groups()
    if not start:
        yield f"yt:{video}:*"
        return
    seconds, length = float(start), float(end) - float(start) if end else None
    if length is not None and length >= LONGEST_CUT:
        seconds, length = seconds / 1000, length / 1000
    yield f"yt:{video}:{int(seconds)}"
    if start.startswith("0") and len(start) > 1:  # VGGSound's six digits
        return
    if length is None and seconds >= 1000 and seconds % 1000 == 0:
        yield f"yt:{video}:{int(seconds / 1000)}"
    if length in (None, SEGMENT):
        yield f"segment:{video}"


def names_of_clip(video: str, start: int | None) -> list[str]:
    """What `youtube_names` may have read from the file of a clip, the surest first.

    A name without start is AudioSet's segment or the whole video; the audio check tells which.
    """
    if start is None:
        return [f"yt:{video}:*", f"segment:{video}"]
    return [f"yt:{video}:{start}", f"yt:{video}:*"]


def speech_names(path: str) -> Iterator[str]:
    """The key of an utterance of VoxCeleb, EARS, Expresso or Emilia, in any tree or flat; ends in
    `:voicefixer` for a denoised copy.
    """
    stem = without_ending(path)
    vox = re.search(_VOX.pattern + r"$", stem)
    if vox is not None:
        version = 1 if vox[1] >= FIRST_OF_VOXCELEB1 else 2
        yield f"vox:v{version}:{vox[1]}:{vox[2]}:{vox[3]}{':voicefixer' if vox[4] else ''}"
        return
    expresso = _EXPRESSO.fullmatch(PurePosixPath(stem).name)
    if expresso is not None:
        yield f"expresso:{expresso[1]}"
        return
    try:
        yield paraspeech_key(path)
    except IdentityError:
        return  # a file of something else


def jamendo_names(path: str) -> Iterator[str]:
    """`<track>` of a whole track, `<track>_<start>` of a segment."""
    match = _JAMENDO.fullmatch(name_stem(path))
    if match is not None:
        yield match[1] if match[2] is None else f"{match[1]}_{match[2]}"
