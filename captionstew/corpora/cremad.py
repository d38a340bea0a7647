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

from captionstew.corpora.labelled import LabelledClip, LabelledCorpus
from captionstew.corpora.release import AudioFolder, Report, find_release_file, read_csv
from captionstew.corpora.speaker_clip import HOMES, SpeakerClip, age_of_years
from captionstew.hashing import stable_hash

CREMAD_EMOTIONS = {
    "ANG": "angry", "DIS": "disgusted", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad",
}  # fmt: skip


def _cremad(folder: Path, report: Report) -> Iterator[SpeakerClip]:
    """The intended emotion of the file name; sex and age from VideoDemographics.csv."""
    audio = AudioFolder(folder)
    columns = ("ActorID", "Age", "Sex")
    actors = {
        row["ActorID"]: row
        for row in read_csv(
            find_release_file(folder, ["VideoDemographics.csv"], HOMES["cremad"]), columns
        )
    }
    clips = read_csv(
        find_release_file(folder, ["SentenceFilenames.csv"], HOMES["cremad"]), ("Filename",)
    )
    for name in (row["Filename"] for row in clips):
        actor, _, code, _ = f"{name}___".split("_")[:4]
        about = actors.get(actor)
        if about is None or code not in CREMAD_EMOTIONS:
            report.drop("CREMA-D: unknown actor or emotion in the file name", name)
            continue
        path = audio.path_in_tree(f"AudioWAV/{name}.wav")
        age = age_of_years(int(about["Age"]))
        yield SpeakerClip(
            "cremad", f"cremad:{name}", path, CREMAD_EMOTIONS[code], about["Sex"].lower(), age
        )


CREMAD_HOME = "https://github.com/CheyneyComputerScience/CREMA-D"


CREMAD_ACTORS = range(1001, 1092)


CREMAD_SPLIT_SEED = 2025


CREMAD_TEST_ACTORS, CREMAD_VALID_ACTORS = 19, 9


def cremad_split(seed: int = CREMAD_SPLIT_SEED) -> dict[str, str]:
    """Actor -> train | valid | test of CREMA-D, which has no official split; it depends on the seed
    alone.

    The actors follow a seeded hash: 19 test, 9 validate, 63 train.
    """
    order = sorted(map(str, CREMAD_ACTORS), key=lambda actor: stable_hash("cremad", seed, actor))
    bounds = (("test", CREMAD_TEST_ACTORS), ("valid", CREMAD_VALID_ACTORS), ("train", len(order)))
    return dict(zip(order, (split for split, count in bounds for _ in range(count))))


EMOTIONS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
NAME = re.compile(r"(1\d{3})_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX)")


def read(args: argparse.Namespace, report: Report) -> tuple[list[str], Iterator[LabelledClip]]:
    return list(EMOTIONS.values()), clips(args, report)


def clips(args: argparse.Namespace, report: Report) -> Iterator[LabelledClip]:
    splits = cremad_split()
    audio = AudioFolder(args.audio_dir)
    path = find_release_file(args.corpus_dir, ["SentenceFilenames.csv"], CREMAD_HOME)
    for row in read_csv(path, ("Filename",)):
        name = NAME.fullmatch(row["Filename"].strip())
        if name is None or name[1] not in splits:
            report.drop("name is not <actor>_<sentence>_<emotion>_<level>", row["Filename"])
            continue
        actor, sentence, emotion, level = name.groups()
        labels = {
            "label": EMOTIONS[emotion],
            "speaker": actor,
            "sentence": sentence,
            "level": level,
        }
        yield LabelledClip(
            f"cremad:{name[0]}", audio.path(f"AudioWAV/{name[0]}.wav"), splits[actor], labels
        )


CORPUS = LabelledCorpus(name="cremad", home=CREMAD_HOME, read=read)
