"""CREMA-D: twelve sentences by 91 actors in six emotions. Cao et al., 2014.

Release: https://github.com/CheyneyComputerScience/CREMA-D (git-LFS; ODbL 1.0, DbCL 1.0),
SentenceFilenames.csv and AudioWAV/ into CORPUS_DIR. 7,442 clips named
<actor>_<sentence>_<emotion>_<level>.wav. `custom.label` is the emotion that the actor intended,
which the name tells; the crowd's votes are another matter.

There is no official split. Of the actors 1001 to 1091, in the order of a seeded hash, 19 test, 9
validate and 63 train (the shares of the split in EVAR); no actor is in two parts.

    "Stimulus_Number","Filename"
    1,"1001_IEO_NEU_XX"

    python local/prepare_corpus.py cremad --corpus-dir download/cremad --output-dir data/cremad
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.labelled import LabelledClip, LabelledCorpus
from captionstew.corpora.release import Report, find_release_file, read_csv
from captionstew.corpora.speaker_clip import SpeakerClip, age_of_years
from captionstew.hashing import stable_hash

HOME = "https://github.com/CheyneyComputerScience/CREMA-D"
LICENSE = "ODbL-1.0 / DbCL-1.0"
NAMES, SPEAKERS = "SentenceFilenames.csv", "VideoDemographics.csv"
ACTORS = range(1001, 1092)
SPLIT_SEED = 2025
TEST_ACTORS, VALID_ACTORS = 19, 9
NAME = re.compile(r"(1\d{3})_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX)")
# code -> the class of the probing task, the word of the questions about speakers
EMOTIONS = {
    "ANG": ("anger", "angry"),
    "DIS": ("disgust", "disgusted"),
    "FEA": ("fear", "fearful"),
    "HAP": ("happy", "happy"),
    "NEU": ("neutral", "neutral"),
    "SAD": ("sad", "sad"),
}


class Utterance(NamedTuple):
    """What the name of a clip tells."""

    name: str
    actor: str
    sentence: str
    emotion: str  # a key of EMOTIONS
    level: str

    @property
    def key(self) -> str:
        return f"cremad:{self.name}"

    @property
    def path(self) -> str:
        return f"AudioWAV/{self.name}.wav"


def utterances(folder: Path, report: Report) -> Iterator[Utterance]:
    """The clips in the order of the release; those of an unknown form or actor are counted."""
    for row in read_csv(find_release_file(folder, [NAMES], HOME), ("Filename",)):
        name = NAME.fullmatch(row["Filename"].strip())
        if name is None or int(name[1]) not in ACTORS:
            report.drop("name is not <actor>_<sentence>_<emotion>_<level>", row["Filename"])
        else:
            yield Utterance(name[0], *name.groups())


def split_of_actors(seed: int = SPLIT_SEED) -> dict[str, str]:
    """Actor -> train | valid | test; CREMA-D has no official split, so it depends on the seed
    alone.

    The actors follow a seeded hash: 19 test, 9 validate, 63 train.
    """
    order = sorted(map(str, ACTORS), key=lambda actor: stable_hash("cremad", seed, actor))
    bounds = (("test", TEST_ACTORS), ("valid", VALID_ACTORS), ("train", len(order)))
    return dict(zip(order, (split for split, count in bounds for _ in range(count))))


def read(args: argparse.Namespace, report: Report) -> tuple[list[str], Iterator[LabelledClip]]:
    return [label for label, _ in EMOTIONS.values()], clips(args, report)


def clips(args: argparse.Namespace, report: Report) -> Iterator[LabelledClip]:
    splits = split_of_actors()
    audio = AudioFolder(args.audio_dir, report)
    for said in utterances(args.corpus_dir, report):
        labels = {
            "label": EMOTIONS[said.emotion][0],
            "speaker": said.actor,
            "sentence": said.sentence,
            "level": said.level,
        }
        yield LabelledClip(said.key, audio.path(said.path), splits[said.actor], labels)


def speaker_clips(folder: Path, report: Report) -> Iterator[SpeakerClip]:
    """The intended emotion of the file name; sex and age from VideoDemographics.csv."""
    audio = AudioFolder(folder)
    table = read_csv(find_release_file(folder, [SPEAKERS], HOME), ("ActorID", "Age", "Sex"))
    actors = {row["ActorID"]: row for row in table}
    for said in utterances(folder, report):
        about = actors.get(said.actor)
        if about is None:
            report.drop(f"CREMA-D: actor is not in {SPEAKERS}", said.name)
            continue
        path, age = audio.path_in_tree(said.path), age_of_years(int(about["Age"]))
        emotion = EMOTIONS[said.emotion][1]
        yield SpeakerClip("cremad", said.key, path, emotion, about["Sex"].lower(), age)


CORPUS = LabelledCorpus(name="cremad", home=HOME, read=read)
