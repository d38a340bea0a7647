"""Emotion, gender and age of the speakers of five speech corpora, in one vocabulary.

    clips = speaker_clips("cremad", Path("download/cremad"), report)

Every reader takes the corpus as it is released and yields a SpeakerClip per utterance; a label that
the release does not give, or that is none of the vocabulary, is None.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from captionstew.corpora.commonvoice import _commonvoice
from captionstew.corpora.cremad import _cremad
from captionstew.corpora.iemocap import _iemocap
from captionstew.corpora.meld import _meld
from captionstew.corpora.ravdess import _ravdess
from captionstew.corpora.release import (
    ReleaseError,
    Report,
)
from captionstew.corpora.speaker_clip import HOMES, SpeakerClip


def speaker_clips(
    corpus: str, folder: Path, report: Report, commonvoice_list: str = "train"
) -> Iterator[SpeakerClip]:
    """The corpus's utterances in the order of the release; raises ReleaseError for what is not
    there.
    """
    if not folder.is_dir():
        raise ReleaseError(
            f"{folder} is missing; get {corpus} from {HOMES[corpus]} and put it there, or leave it"
            " out of --corpora"
        )
    options = {"name": commonvoice_list} if corpus == "commonvoice" else {}
    return READERS[corpus](folder, report, **options)


READERS: dict[str, Callable[..., Iterator[SpeakerClip]]] = {
    "commonvoice": _commonvoice,
    "iemocap": _iemocap,
    "cremad": _cremad,
    "ravdess": _ravdess,
    "meld": _meld,
}
