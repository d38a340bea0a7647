"""Which recordings may not be in pretraining: the keys of every evaluation set of the study.

Each corpus' module says what its evaluation lists hold. Keys are as the leakage filter compares
them: a group (`yt:<video>`, `vox:<v>:<speaker>:<video>`), or one clip's key (`fs:<id>`,
ParaSpeechCaps utterances).
"""

from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora import audioset, audioset_strong, known
from captionstew.corpora.build.corpus_list import ALL_SPLITS
from captionstew.corpora.own.caption_rows import own_clips
from captionstew.corpora.own.read import is_folder_corpus
from captionstew.corpora.release import ReleaseError, Report

# Splits on which numbers are reported; every other split (val, dev, ...) counts under
# `--leakage strict` alone.
TEST_SPLITS = frozenset({"test", "eval", "evaluation", "holdout", "all"})


def evaluation_keys(corpora: Path, name: str, split: str) -> Iterator[str]:
    """Distinct keys of one evaluation list, in the order of the release."""
    if known.is_evaluated(name):
        keys = known.load(name).evaluation_keys(corpora, split)
    elif is_folder_corpus(corpora / name):
        clips = own_clips(corpora / name, Report())
        keys = (own.audio_key for own in clips if split in (ALL_SPLITS, own.split))
    else:
        raise ReleaseError(
            f"{name} is neither a folder with captions.csv in {corpora} nor one of"
            f" {', '.join(known.evaluated())}"
        )
    yield from dict.fromkeys(keys)


def audioset_starts(corpora: Path) -> Iterator[tuple[str, int]]:
    """(video, start second) from every AudioSet list at hand; they complete starts that releases
    leave out.
    """
    yield from audioset.segment_starts(corpora)
    yield from audioset_strong.segment_starts(corpora)
