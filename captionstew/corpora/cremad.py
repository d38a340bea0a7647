"""CREMA-D: twelve sentences by 91 actors in six emotions. Cao et al., 2014.

Release: https://github.com/CheyneyComputerScience/CREMA-D (git-LFS; ODbL 1.0, DbCL 1.0),
SentenceFilenames.csv and AudioWAV/ into CORPUS_DIR. 7,442 clips named
<actor>_<sentence>_<emotion>_<level>.wav. `custom.label` is the emotion that the actor intended,
which the name tells; the crowd's votes are another matter.

There is no official split. `--split public` is the one in common use (of TensorFlow Datasets, taken
over by EVAR): 19 of the actors 1001 to 1091 test, 9 validate and 63 train, no actor is in two
parts. `--split paper` has the paper's sizes, 6,030 clips to train and 706 each to validate and to
test, drawn at random: actors are in several parts, and accuracies are higher.

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
from captionstew.corpora.labelled import LabelledClip, LabelledCorpus, paper_split
from captionstew.corpora.release import Report, find_release_file, read_csv
from captionstew.corpora.speaker_clip import SpeakerClip, age_of_years

HOME = "https://github.com/CheyneyComputerScience/CREMA-D"
LICENSE = "ODbL-1.0 / DbCL-1.0"
NAMES, SPEAKERS = "SentenceFilenames.csv", "VideoDemographics.csv"
ACTORS = range(1001, 1092)
TEST_ACTORS = frozenset(
    (1001, 1004, 1017, 1019, 1020, 1025, 1026, 1029, 1033, 1035, 1042, 1044, 1050, 1053, 1056, 1058,
     1060, 1069, 1083)
)  # fmt: skip
VALID_ACTORS = frozenset((1009, 1011, 1022, 1034, 1039, 1047, 1066, 1070, 1082))
PAPER_HELD_OUT = 706  # clips each to validate and to test
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


def split_of_actor(actor: str) -> str:
    """train | valid | test of the public split."""
    number = int(actor)
    return "test" if number in TEST_ACTORS else "valid" if number in VALID_ACTORS else "train"


def read(args: argparse.Namespace, report: Report) -> tuple[list[str], Iterator[LabelledClip]]:
    return [label for label, _ in EMOTIONS.values()], clips(args, report)


def clips(args: argparse.Namespace, report: Report) -> Iterator[LabelledClip]:
    audio = AudioFolder(args.audio_dir, report)
    listed = list(utterances(args.corpus_dir, report))
    if args.split == "paper":
        splits = paper_split((said.key for said in listed), PAPER_HELD_OUT, PAPER_HELD_OUT)
    else:
        splits = {said.key: split_of_actor(said.actor) for said in listed}
    for said in listed:
        labels = {
            "label": EMOTIONS[said.emotion][0],
            "speaker": said.actor,
            "sentence": said.sentence,
            "level": said.level,
        }
        yield LabelledClip(said.key, audio.path(said.path), splits[said.key], labels)


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


CORPUS = LabelledCorpus(name="cremad", home=HOME, read=read, has_paper_split=True)
