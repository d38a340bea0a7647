"""Common Voice: read speech with speakers' ages and genders."""

import csv
from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.keys import name_stem
from captionstew.corpora.release import (
    ReleaseError,
    Report,
    find_release_file,
    open_text,
)
from captionstew.corpora.speaker_clip import SpeakerClip, age_of_decade

HOME = "https://commonvoice.mozilla.org/datasets (13.0, English)"
LICENSE = "CC0-1.0"

GENDERS = {
    "male": "male", "female": "female", "male_masculine": "male", "female_feminine": "female",
}  # fmt: skip


def speaker_clips(folder: Path, report: Report, name: str) -> Iterator[SpeakerClip]:
    """<name>.tsv, tab-separated without quoting, and clips/; only speakers with a gender or an
    age.
    """
    path = find_release_file(folder, [f"{name}.tsv", f"en/{name}.tsv"], HOME)
    audio = AudioFolder(path.parent / "clips")
    with open_text(path) as stream:
        reader = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        if missing := {"path", "age", "gender"} - set(reader.fieldnames or ()):
            raise ReleaseError(
                f"{path}: column {sorted(missing)[0]!r} is missing; it has {reader.fieldnames}"
            )
        for row in reader:
            age = age_of_decade((row["age"] or "").strip())
            gender = GENDERS.get((row["gender"] or "").strip())
            if age is None and gender is None:
                report.drop("Common Voice: neither age nor gender", row["path"])
                continue
            key = f"commonvoice:{name_stem(row['path'])}"
            yield SpeakerClip("commonvoice", key, audio.path(row["path"]), gender=gender, age=age)
