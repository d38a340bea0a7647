"""The audio of a corpus, found in whatever layout an archive or a downloader left it."""

import os
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from captionstew.corpora.keys import name_stem, without_ending
from captionstew.corpora.own.audio_names import audio_files
from captionstew.corpora.release import Report

ENCODED = ".m4a"  # where a decoded copy lies beside it, the copy is taken: it is read faster


class AudioFolder:
    """Finds a clip's file, by one walk through the folder (links are followed): by its name
    without folder and ending, by the end of its path, or by what `names` reads from its path.

    A clip that is not there gets the path where it is expected, so that the list of missing files
    says what to get. `report` will say which files no clip asked for.
    """

    def __init__(
        self,
        folder: Path,
        report: Report | None = None,
        names: Callable[[str], Iterable[str]] = lambda path: (),
    ) -> None:
        self.folder = folder
        self._names = names
        found = list(audio_files(folder))
        found.sort(key=lambda path: path.lower().endswith(ENCODED))
        self._files = found
        self._used = bytearray(len(found))
        self._missing = array("q")
        self._missing_examples: list[str] = []
        if report is not None:
            report.audio.append(self)

    @cached_property
    def _by_stem(self) -> dict[str, int]:
        return {_composed(name_stem(path)): n for n, path in self._backwards()}

    @cached_property
    def _by_tail(self) -> dict[str, list[int]]:
        """Folder and name, which repeat little even where names alone do (VoxCeleb's 00001)."""
        found: dict[str, list[int]] = {}
        for number, path in enumerate(self._files):
            found.setdefault(_tail(_composed(without_ending(path))), []).append(number)
        return found

    @cached_property
    def _by_name(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for number, path in enumerate(self._files):
            for name in self._names(path):
                found.setdefault(name, number)
        return found

    def _backwards(self) -> Iterable[tuple[int, str]]:
        return reversed(list(enumerate(self._files)))

    def path(self, expected: str, *other_stems: str) -> str:
        """Absolute path of the file named like `expected` (relative, with ending) or like one of
        `other_stems`.
        """
        return self._answer(expected, self._stem(name_stem(expected), *other_stems))

    def path_in_tree(self, expected: str, *other_paths: str) -> str:
        """The same for releases whose file names repeat in every folder: the file whose path ends
        most like one of these paths, in folder and name at least.
        """
        for path in (expected, *other_paths):
            wanted = _composed(without_ending(path))
            candidates = self._by_tail.get(_tail(wanted), [])
            if candidates:
                return self._answer(
                    expected, max(candidates, key=lambda n: _common(self._files[n], wanted))
                )
        return self._answer(expected, None)

    def named(self, expected: str, names: Sequence[str], *stems: str) -> str:
        """The file of the first of `names` that was read from a path, or with one of these names
        without folder and ending.
        """
        found = next((self._by_name[name] for name in names if name in self._by_name), None)
        return self._answer(expected, self._stem(*stems) if found is None else found)

    def has(self, name: str) -> bool:
        """Whether this was read from the path of a file."""
        return name in self._by_name

    def _stem(self, *stems: str) -> int | None:
        found = (self._by_stem.get(_composed(stem)) for stem in stems)
        return next((number for number in found if number is not None), None)

    def _answer(self, expected: str, number: int | None) -> str:
        if number is not None:
            self._used[number] = 1
            return str(self.folder / self._files[number])
        self._missing.append(hash(expected))
        if len(self._missing_examples) < 3 and expected not in self._missing_examples:
            self._missing_examples.append(expected)
        return str(self.folder / expected)

    def summary(self) -> dict[str, Any]:
        """How many files are there, and what did not meet: files without a clip, clips without a
        file, three examples of each.
        """
        unused = np.flatnonzero(np.frombuffer(self._used, np.uint8) == 0)
        return {
            "files": len(self._files),
            "files_without_clip": {
                "count": len(unused),
                "examples": [self._files[n] for n in unused[:3]],
            },
            "clips_without_file": {
                "count": len(np.unique(np.frombuffer(self._missing, np.int64))),
                "examples": self._missing_examples,
            },
        }


def _composed(name: str) -> str:
    """An accented letter as one character, whatever the file system makes of it."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _tail(path: str) -> str:
    return "/".join(PurePosixPath(path).parts[-2:])


def _common(file: str, wanted: str) -> int:
    """How many parts the ends of two paths have in common."""
    theirs, ours = _composed(without_ending(file)).split("/")[::-1], wanted.split("/")[::-1]
    return len(os.path.commonprefix([theirs, ours]))
