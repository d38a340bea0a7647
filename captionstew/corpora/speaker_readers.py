"""Emotion, gender and age of the speakers of five speech corpora, in one vocabulary.

    clips = speaker_clips("cremad", Path("download/cremad"), report)

Every corpus' module takes the corpus as it is released and yields a SpeakerClip per utterance; a
label that the release does not give, or that is none of the vocabulary, is None.
"""

from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora import commonvoice, cremad, iemocap, meld, ravdess
from captionstew.corpora.release import ReleaseError, Report
from captionstew.corpora.speaker_clip import SpeakerClip

HOMES = {
    "commonvoice": commonvoice.HOME,
    "iemocap": iemocap.HOME,
    "cremad": cremad.HOME,
    "ravdess": ravdess.HOME,
    "meld": meld.HOME,
}
LICENSES = {
    "commonvoice": commonvoice.LICENSE,
    "iemocap": iemocap.LICENSE,
    "cremad": cremad.LICENSE,
    "ravdess": ravdess.LICENSE,
    "meld": meld.LICENSE,
}
READERS = {
    "iemocap": iemocap.speaker_clips,
    "cremad": cremad.speaker_clips,
    "ravdess": ravdess.speaker_clips,
    "meld": meld.speaker_clips,
}


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
    if corpus == "commonvoice":
        return commonvoice.speaker_clips(folder, report, commonvoice_list)
    return READERS[corpus](folder, report)
