"""MELD: utterances from the series Friends with emotions."""

from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.release import Report, find_release_file, read_csv
from captionstew.corpora.speaker_clip import SpeakerClip

HOME = "https://github.com/declare-lab/MELD"
LICENSE = "GPL-3.0"

EMOTIONS = {
    "anger": "angry", "disgust": "disgusted", "fear": "fearful", "joy": "happy",
    "neutral": "neutral", "sadness": "sad", "surprise": "surprised",
}  # fmt: skip


# The six main characters speak 83 % of MELD's training utterances; of the others the release says
# nothing.
GENDERS = {
    "Chandler": "male", "Joey": "male", "Ross": "male", "Monica": "female", "Phoebe": "female",
    "Rachel": "female",
}  # fmt: skip


def speaker_clips(folder: Path, report: Report) -> Iterator[SpeakerClip]:
    """The training split; take the sound out of train_splits/dia*_utt*.mp4 first (ffmpeg -i x.mp4
    x.wav).
    """
    audio = AudioFolder(folder)
    columns = ("Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
    for row in read_csv(find_release_file(folder, ["train_sent_emo.csv"], HOME), columns):
        stem = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
        emotion, gender = (
            EMOTIONS.get(row["Emotion"].strip()),
            GENDERS.get(row["Speaker"].strip()),
        )
        if emotion is None and gender is None:
            report.drop("MELD: neither emotion nor gender", stem)
            continue
        yield SpeakerClip(
            "meld", f"meld:{stem}", audio.path_in_tree(f"train_splits/{stem}.wav"), emotion, gender
        )
