"""Which recordings may not be in pretraining: the keys of every evaluation set of the study.

Each reader takes the folder that holds one folder per corpus and the name of a split, and yields
keys as the leakage filter compares them: a group (`yt:<video>`, `vox:<v>:<speaker>:<video>`), or
one clip's key (`fs:<id>`, ParaSpeechCaps utterances).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from captionstew.corpora.airbench import _airbench
from captionstew.corpora.audiocaps import _audiocaps
from captionstew.corpora.audioset import _audioset, read_audioset_segments
from captionstew.corpora.audioset_strong import _audioset_strong, read_audioset_strong
from captionstew.corpora.build.corpus_list import ALL_SPLITS
from captionstew.corpora.clotho import _clotho
from captionstew.corpora.clothoaqa import _clothoaqa
from captionstew.corpora.fsd50k import _fsd50k
from captionstew.corpora.musiccaps import _musiccaps
from captionstew.corpora.own.caption_rows import own_clips
from captionstew.corpora.own.read import is_folder_corpus
from captionstew.corpora.paraspeechcaps import _paraspeechcaps
from captionstew.corpora.release import ReleaseError, Report
from captionstew.corpora.urbansound8k import _urbansound8k
from captionstew.corpora.vggsound import _vggsound
from captionstew.corpora.voxceleb2 import (
    _voxceleb2,
)

# Splits on which numbers are reported; every other split (val, dev, ...) counts under `--leakage
# strict` alone.
TEST_SPLITS = frozenset({"test", "eval", "evaluation", "holdout", "all"})


EVALUATION_READERS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    "audiocaps": _audiocaps,
    "musiccaps": _musiccaps,
    "vggsound": _vggsound,
    "audioset": _audioset,
    "audioset_strong": _audioset_strong,
    "fsd50k": _fsd50k,
    "urbansound8k": _urbansound8k,
    "clotho": _clotho,
    "clothoaqa": _clothoaqa,
    "airbench": _airbench,
    "paraspeechcaps": _paraspeechcaps,
    "voxceleb2": _voxceleb2,
}


def evaluation_keys(corpora: Path, name: str, split: str) -> Iterator[str]:
    """Distinct keys of one evaluation list, in the order of the release."""
    if name in EVALUATION_READERS:
        keys = EVALUATION_READERS[name](corpora, split)
    elif is_folder_corpus(corpora / name):
        clips = own_clips(corpora / name, Report())
        keys = (own.audio_key for own in clips if split in (ALL_SPLITS, own.split))
    else:
        known = ", ".join(EVALUATION_READERS)
        raise ReleaseError(
            f"{name} is neither a folder with captions.csv in {corpora} nor one of {known}"
        )
    yield from dict.fromkeys(keys)


def audioset_starts(corpora: Path) -> Iterator[tuple[str, int]]:
    """(video, start second) from every AudioSet segment list at hand; they complete starts that
    releases leave out.
    """
    for path in sorted((corpora / "audioset").glob("*_segments*.csv*")):
        for segment in read_audioset_segments(path):
            yield segment.video, int(segment.start)
    strong = corpora / "audioset_strong"
    for path in [
        *sorted(strong.glob("audioset_*_strong.tsv*")),
        *sorted(strong.glob("*_events*.jsonl*")),
    ]:
        for clip in read_audioset_strong(path):
            yield clip.video, clip.start
