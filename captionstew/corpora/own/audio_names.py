"""The audio files of a folder, found under any usual spelling of their names.

Tables come from other systems: `audio\\a.wav`, `audio//a.wav`, `./audio/a.wav`, and an accented
letter as one character or as two (NFC, NFD) are all the same file.
"""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from captionstew.data.audio import AUDIO_ENDINGS


def normal_name(file: str) -> str:
    """The shortest form with forward slashes, composed characters (NFC): one clip has one name."""
    name = os.path.normpath(file.strip().replace("\\", "/"))
    return unicodedata.normalize("NFC", str(PurePosixPath(name)))


def audio_files(folder: Path) -> Iterator[str]:
    """Paths of all audio files below `folder`, relative to it, in a fixed order; links are
    followed, each folder once.
    """
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        place = os.path.realpath(root)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(root, folder)
        for name in sorted(files):
            if name.lower().endswith(AUDIO_ENDINGS) and not name.startswith("."):
                yield name if below == "." else os.path.join(below, name)


class AudioNames:
    """What lies in `folder`.

    With `expect_missing` a file that is not there has the path where it should be: a later check
    lists it.
    """

    def __init__(self, folder: Path, expect_missing: bool = False) -> None:
        self.folder = folder
        self.expect_missing = expect_missing
        self.paths: dict[str, Path] = {}  # normal name -> path of every audio file
        for name in audio_files(folder):
            self.paths.setdefault(normal_name(name), folder / name)

    def find(self, name: str) -> Path | None:
        """The file of a normal name, audio by its ending or not; None if there is none."""
        if name in self.paths:
            return self.paths[name]
        path = self.folder / name
        return path if self.expect_missing or path.is_file() else None
