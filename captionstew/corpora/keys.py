"""Canonical keys: when are two clips of two releases the same sound?

    yt:<11-character id>:<start second>     YouTube; "*" stands for an unknown start
    fs:<Freesound id>                       Clotho, WavCaps FreeSound, FSD50K, UrbanSound8K
    vox:<v1|v2>:<idNNNNN>:<video>:<NNNNN>   VoxCeleb1/2, and ParaSpeechCaps where it has them
    bbc:<id>  soundbible:<id>  jamendo:<track>:<start|full>  ears:<pNNN>:<stem>  expresso:<stem>
    emilia:<stem>  clotho:<file name>       of one corpus; a folder of one's own: <name>:<file>

A leak is looked for by the *group* of a key, the recording that a clip was cut from: the whole
video for `yt:` and `vox:`, the whole track for `jamendo:`, the key itself elsewhere.
"""

import math
import re
from pathlib import PurePosixPath

from captionstew.data.audio import AUDIO_ENDINGS


def video_key(video: str) -> str:
    """The whole video: `yt:<id>`."""
    return group_key(youtube_key(youtube_id(video), None))


UNKNOWN_START = "*"

# AudioSet has at most one segment per video, so within these sources the video alone names the
# sound.
AUDIOSET_FAMILY = frozenset(
    {
        "audioset",
        "audioset_strong",
        "audiocaps",
        "musiccaps",
        "wavcaps_audioset",
        "audiosetcaps_audioset",
        "fusionaudio",
    }
)

_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_SECONDS = r"\d+(?:\.\d+)?"
# An id has a fixed length, so it is cut by counting: it may itself contain "_", begin with "-" or
# begin with "Y".
_YOUTUBE_NAME = re.compile(rf"Y?([A-Za-z0-9_-]{{11}})(?:_({_SECONDS}))?(?:_({_SECONDS}))?(?:-\d)?")
_VOX_PATH = re.compile(
    r"voxceleb([12])/\w+/\w+/(id\d{5})/([A-Za-z0-9_-]{11})/(\d{5})(?:_voicefixer)?"
)
_VOX_FLAT = re.compile(
    r"voxceleb([12])_[a-z]+_[a-z0-9]+_(id\d{5})_([A-Za-z0-9_-]{11})_(\d{5})(?:_voicefixer)?"
)
_EXPRESSO_READ_FLAT = re.compile(r"(?:expresso_)?audio_48khz_read_(ex\d\d)_.+?_(\1_.+)")
_EXPRESSO_TALK_FLAT = re.compile(
    r"(?:expresso_)?audio_48khz_conversational_vad_segmented_(ex\d\d-ex\d\d)_(.+?)_(\1_\2_.+)"
)
_EARS_FLAT = re.compile(r"(?:EARS_audio_)?(p\d{3})[_/](.+)")
_EMILIA_STEM = re.compile(r"[A-Z]{2}_B\d+_S\d+_W\d+")


class IdentityError(ValueError):
    """A name from which no canonical key can be read."""


def without_ending(path: str) -> str:
    """A path without its ending; only that of audio or video counts as one (Expresso names have
    dots).
    """
    ending = next((x for x in AUDIO_ENDINGS if path.lower().endswith(x)), "")
    return path.removesuffix(path[len(path) - len(ending) :]) if ending else path


def name_stem(name: str) -> str:
    """Base name without folder and ending."""
    return without_ending(PurePosixPath(str(name).strip()).name)


def start_second(seconds: float | str | None) -> int | None:
    """Start of a clip as the whole second of its key: floor; None and "" mean unknown."""
    if seconds is None or seconds == "":
        return None
    value = float(seconds)
    if not math.isfinite(value) or value < 0:
        raise IdentityError(f"start {seconds!r} is not a time in seconds, zero or later")
    return math.floor(value)


def youtube_segment(name: str) -> tuple[str, int | None]:
    """(video id, start second or None) from `[Y]<id>[_<start>[_<end or duration>]][.wav]`.

    One leading "Y" is dropped only where 11 characters remain before the numbers:
    `Yb0RFKhbpFJA.wav`.
    """
    match = _YOUTUBE_NAME.fullmatch(name_stem(name))
    if match is None:
        raise IdentityError(f"no 11-character YouTube id in {name!r}")
    return match[1], start_second(match[2])


def youtube_id(name: str) -> str:
    """The 11-character video id inside a bare id, a file name or a path."""
    return youtube_segment(name)[0]


def strong_segment(segment_id: str) -> tuple[str, int]:
    """(video id, start second) from AudioSet-strong's `<id>_<start in milliseconds>`."""
    video, separator, start_ms = segment_id.strip().rpartition("_")
    if not separator or not _YOUTUBE_ID.fullmatch(video) or not start_ms.isdigit():
        raise IdentityError(
            f"AudioSet-strong segment {segment_id!r} is not <video id>_<milliseconds>"
        )
    return video, int(start_ms) // 1000


def youtube_key(video: str, start: float | str | None) -> str:
    """`yt:<id>:<second>`; an unknown start gives `yt:<id>:*`."""
    if not _YOUTUBE_ID.fullmatch(video):
        raise IdentityError(f"{video!r} is not a YouTube id (11 characters of A-Z a-z 0-9 _ -)")
    second = start_second(start)
    return f"yt:{video}:{UNKNOWN_START if second is None else second}"


def freesound_key(sound_id: str | int) -> str:
    """`fs:<id>` without leading zeros."""
    text = str(sound_id).strip()
    if not text.isdigit():
        raise IdentityError(f"Freesound id {sound_id!r} is not a number")
    return f"fs:{int(text)}"


def voxceleb_key(path: str) -> str:
    """`vox:<v1|v2>:<speaker>:<video>:<utterance>` from
    `voxceleb1/dev/wav/id11127/fIXU5ExruI0/00014_voicefixer.wav`.
    """
    folder = str(PurePosixPath(path).parent)
    match = _VOX_PATH.search(f"{folder}/{name_stem(path)}") or _VOX_FLAT.fullmatch(name_stem(path))
    if match is None:
        raise IdentityError(
            f"{path!r} is not a VoxCeleb path (voxceleb2/dev/aac/id00012/<video>/00001.m4a)"
        )
    return f"vox:v{match[1]}:{match[2]}:{match[3]}:{match[4]}"


def paraspeech_key(path: str) -> str:
    """Key of a ParaSpeechCaps `relative_audio_path`, or of the same path joined by "_" (as one
    mirror writes it).
    """
    stem = name_stem(path)
    parts = PurePosixPath(path).parts
    if "voxceleb" in path:
        return voxceleb_key(path)
    if _EMILIA_STEM.fullmatch(stem):
        return f"emilia:{stem}"
    if "audio_48khz" in parts:
        return f"expresso:{stem}"
    flat = _EXPRESSO_TALK_FLAT.fullmatch(stem) or _EXPRESSO_READ_FLAT.fullmatch(stem)
    if flat is not None:
        return f"expresso:{flat[flat.re.groups]}"
    ears = _EARS_FLAT.fullmatch("/".join([*parts[-2:-1], stem]))
    if ears is not None:
        return f"ears:{ears[1]}:{ears[2]}"
    raise IdentityError(f"{path!r} is of none of VoxCeleb, Expresso, EARS, Emilia")


# The two forms below are the same rule; a test compares them on every kind of key.
GROUP_SQL = """case
    when starts_with({key}, 'yt:') then substr({key}, 1, 14)
    when starts_with({key}, 'vox:') then substr({key}, 1, 26)
    when starts_with({key}, 'jamendo:') then 'jamendo:' || split_part({key}, ':', 2)
    else {key} end"""


def group_key(audio_key: str) -> str:
    """The recording that a clip was cut from: `yt:<id>`, `vox:<v>:<speaker>:<video>`,
    `jamendo:<track>` or the key.
    """
    if audio_key.startswith("yt:"):
        return audio_key[:14]
    if audio_key.startswith("vox:"):
        return audio_key[:26]
    if audio_key.startswith("jamendo:"):
        return "jamendo:" + audio_key.split(":")[1]
    return audio_key
