"""IEMOCAP: dialogues of ten actors with emotions."""

import re
from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.release import ReleaseError, Report, open_text
from captionstew.corpora.speaker_clip import SpeakerClip

HOME = "https://sail.usc.edu/iemocap (licence form)"
LICENSE = "IEMOCAP licence form (research)"

EMOTIONS = {
    "ang": "angry", "dis": "disgusted", "exc": "excited", "fea": "fearful", "fru": "frustrated",
    "hap": "happy", "neu": "neutral", "sad": "sad", "sur": "surprised",
}  # fmt: skip


def speaker_clips(folder: Path, report: Report) -> Iterator[SpeakerClip]:
    """Session*/dialog/EmoEvaluation/<dialog>.txt; the speaker's gender is the letter before the
    turn's number.
    """
    audio = AudioFolder(folder)
    line_form = re.compile(r"\[[\d.]+ - [\d.]+\]\t(Ses\w+_([FM])\d+)\t(\w+)\t")
    tables = sorted(
        folder.glob("Session*/dialog/EmoEvaluation/Ses*.txt")
    )  # leaves out the ._*.txt of macOS
    if not tables:
        raise ReleaseError(f"{folder}: no Session*/dialog/EmoEvaluation/*.txt; get it from {HOME}")
    for table in tables:
        for line in open_text(table, "iso-8859-1"):
            found = line_form.match(line)
            if found is None:
                continue
            turn, letter, code = found.groups()
            emotion = EMOTIONS.get(code)
            if emotion is None:
                report.drop(f"IEMOCAP: no emotion for code {code}", turn)
            path = audio.path_in_tree(
                f"{table.parts[-4]}/sentences/wav/{turn.rpartition('_')[0]}/{turn}.wav"
            )
            yield SpeakerClip(
                "iemocap", f"iemocap:{turn}", path, emotion, {"F": "female", "M": "male"}[letter]
            )
