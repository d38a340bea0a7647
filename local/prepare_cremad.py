"""CREMA-D: twelve sentences by 91 actors in six emotions. Cao et al., 2014.

Release: https://github.com/CheyneyComputerScience/CREMA-D (git-LFS; ODbL 1.0, DbCL 1.0), SentenceFilenames.csv and
AudioWAV/ into CORPUS_DIR. 7,442 clips named <actor>_<sentence>_<emotion>_<level>.wav. `custom.label` is the emotion
that the actor intended, which the name tells; the crowd's votes are another matter.

There is no official split. Of the actors 1001 to 1091, in the order of a seeded hash, 19 test, 9 validate and 63 train
(the shares of the split in EVAR); no actor is in two parts.

    "Stimulus_Number","Filename"
    1,"1001_IEO_NEU_XX"

    python local/prepare_cremad.py --corpus-dir download/cremad --output-dir data/cremad
"""

import argparse
import re
from collections.abc import Iterator

from captionstew.data.corpus_cli import AudioFolder, Report, find_release_file, read_csv
from captionstew.data.label_lists import CREMAD_HOME, cremad_split
from captionstew.data.labelled import LabelledClip, LabelledCorpus, run_labelled
from captionstew.data.programs import run_main

EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
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
        labels = {"label": EMOTIONS[emotion], "speaker": actor, "sentence": sentence, "level": level}
        yield LabelledClip(f"cremad:{name[0]}", audio.path(f"AudioWAV/{name[0]}.wav"), splits[actor], labels)


CORPUS = LabelledCorpus(name="cremad", home=CREMAD_HOME, read=read)

if __name__ == "__main__":
    run_main(lambda: run_labelled(CORPUS, __doc__))
