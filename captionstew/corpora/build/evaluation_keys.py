"""Which recordings may not be in pretraining: the keys of every evaluation set of the study.

Each corpus' module says what its evaluation lists hold. Keys are as the leakage filter compares
them: a group (`yt:<video>`, `vox:<v>:<speaker>:<video>`), or one clip's key (`fs:<id>`,
ParaSpeechCaps utterances).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from captionstew.corpora import audioset, audioset_strong, known
from captionstew.corpora.build.corpus_list import ALL_SPLITS
from captionstew.corpora.build.shipped_keys import disagreement, is_whole, shipped_hashes
from captionstew.corpora.keys import IdentityError
from captionstew.corpora.own.caption_rows import OwnClip, own_clips
from captionstew.corpora.own.read import CAPTIONS, is_folder_corpus
from captionstew.corpora.release import EvaluationList, ReleaseError, Report

IDS = "clotho:ids"  # the Freesound ids of all splits
# Splits on which numbers are reported; every other split (val, dev, ...) counts under
# `--leakage strict` alone.
TEST_SPLITS = frozenset({"test", "eval", "evaluation", "holdout", "all", ALL_SPLITS})


@dataclass(frozen=True)
class Gathered:
    """What was read of a list: its distinct keys and how many clips they are of; `problem` where
    that is not the whole list.
    """

    keys: list[str]
    clips: int
    problem: str | None = None


def gather_list(corpora: Path, name: str, split: str, compare: bool = True) -> Gathered:
    """All that a list protects, even where it is cut off or damaged; `compare`: with the keys that
    come with the code.
    """
    keys: dict[str, None] = {}
    clips: set[str] = set()
    try:
        listed = find_list(corpora, name, split)
    except (ReleaseError, IdentityError) as error:
        return Gathered([], 0, str(error))
    problem = None
    try:
        for clip, own in listed.clips:
            keys.update(dict.fromkeys(own))
            if clip is not None:
                clips.add(clip)
    except (ReleaseError, IdentityError) as error:
        problem = f"{error}; "
    if problem or len(clips) < listed.size or not keys:
        files = ", ".join(str(path) for path in listed.files)
        problem = (
            f"{problem or ''}{files}: found {len(clips):,} clips, expected {listed.size:,}; get it"
            f" again from {listed.home}"
        )
    elif compare and (differs := disagreement(f"{name}:{split}", keys)):
        problem = f"{', '.join(str(path) for path in listed.files)}: {differs}"
    return Gathered(list(keys), len(clips), problem)


def shipped(name: str, split: str) -> tuple[np.ndarray, bool]:
    """(hashes of a list's keys that come with the code, whether they are of all its clips)."""
    entry = f"{name}:{split}"
    parts = [shipped_hashes(entry)]
    if name == "clotho":
        parts.append(shipped_hashes(IDS))
    return np.unique(np.concatenate(parts)), is_whole(entry)


def find_list(corpora: Path, name: str, split: str) -> EvaluationList:
    """An evaluation list, of a known corpus or of a folder of one's own. Raises ReleaseError."""
    if known.is_evaluated(name):
        try:
            return known.load(name).evaluation_list(corpora, split)
        except KeyError as error:
            raise ReleaseError(f"{name} has no evaluation list {split!r}") from error
    folder = corpora / name
    if not is_folder_corpus(folder):
        raise ReleaseError(
            f"{name} is neither a folder with {CAPTIONS} in {corpora} nor one of"
            f" {', '.join(known.evaluated())}"
        )
    clips = ((own.clip.key, [own.audio_key]) for own in own_evaluation_clips(folder, split))
    home = "yourself, with the split in its metadata.csv"
    return EvaluationList([folder / CAPTIONS], clips, 1, home)


def own_evaluation_clips(folder: Path, split: str) -> Iterable[OwnClip]:
    clips = own_clips(folder, Report())
    return (own for own in clips if split in (ALL_SPLITS, own.split))


def evaluation_keys(corpora: Path, name: str, split: str) -> Iterator[str]:
    """Distinct keys of one evaluation list, in the order of the release, whole or not."""
    clips = find_list(corpora, name, split).clips
    yield from dict.fromkeys(key for _, keys in clips for key in keys)


def audioset_starts(corpora: Path) -> Iterator[tuple[str, int]]:
    """(video, start second) from every AudioSet list at hand; they complete starts that releases
    leave out.
    """
    yield from audioset.segment_starts(corpora)
    yield from audioset_strong.segment_starts(corpora)
