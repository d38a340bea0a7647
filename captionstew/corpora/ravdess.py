"""RAVDESS: two sentences by 24 actors in eight emotions."""

import re
from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.release import ReleaseError, Report
from captionstew.corpora.speaker_clip import SpeakerClip

HOME = "https://zenodo.org/records/1188976"
LICENSE = "CC-BY-NC-SA-4.0"

EMOTIONS = dict(
    zip(
        ("01", "02", "03", "04", "05", "06", "07", "08"),
        ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgusted", "surprised"),
        strict=True,
    )
)


def speaker_clips(folder: Path, report: Report) -> Iterator[SpeakerClip]:
    """Actor_*/<modality>-<channel>-<emotion>-...-<actor>.wav, speech only; odd actors are men."""
    names = sorted(
        path for path in folder.rglob("*.wav") if re.fullmatch(r"\d\d(-\d\d){6}", path.stem)
    )
    if not names:
        raise ReleaseError(f"{folder}: no file like Actor_01/03-01-01-01-01-01-01.wav; see {HOME}")
    for path in names:
        _, channel, emotion, *_, actor = path.stem.split("-")
        if channel != "01" or emotion not in EMOTIONS:
            report.drop("RAVDESS: not speech", path.name)
            continue
        gender = "male" if int(actor) % 2 else "female"
        yield SpeakerClip("ravdess", f"ravdess:{path.stem}", str(path), EMOTIONS[emotion], gender)
