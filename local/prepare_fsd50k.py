"""FSD50K: sound events on Freesound, 200 classes, several per clip. Fonseca et al., 2022.

Release: https://zenodo.org/records/4060432 (CC BY 4.0; every clip has a licence of its own). Unpack into CORPUS_DIR
FSD50K.dev_audio/, FSD50K.eval_audio/ and FSD50K.ground_truth/ (dev.csv, eval.csv, vocabulary.csv). Splits: the
release's own, 36,796 clips to train, 4,170 to validate, 10,231 to test. `custom.labels` is the list of classes; a class
comes with its parents.

    fname,labels,mids,split                                                           dev.csv
    64760,"Electric_guitar,Guitar,Plucked_string_instrument,Music","/m/02sgy,...",train
    0,Accelerating_and_revving_and_vroom,/m/07q2z82                                    vocabulary.csv, no header

    python local/prepare_fsd50k.py --corpus-dir download/fsd50k --output-dir data/fsd50k
"""

import argparse
from collections.abc import Iterator

from captionstew.data.corpus_cli import AudioFolder, ReleaseError, Report, find_release_file
from captionstew.data.identity import freesound_key
from captionstew.data.label_lists import FSD50K_HOME, read_fsd50k, read_fsd50k_vocabulary
from captionstew.data.labelled import LabelledClip, LabelledCorpus, run_labelled
from captionstew.data.programs import run_main

SPLITS = {"train": "train", "val": "valid", "eval": "test"}


def read(args: argparse.Namespace, report: Report) -> tuple[list[str], Iterator[LabelledClip]]:
    names = ["FSD50K.ground_truth/vocabulary.csv", "vocabulary.csv"]
    vocabulary = read_fsd50k_vocabulary(find_release_file(args.corpus_dir, names, FSD50K_HOME))
    return [label for _, label, _ in vocabulary], clips(args)


def clips(args: argparse.Namespace) -> Iterator[LabelledClip]:
    audio = AudioFolder(args.audio_dir)
    for part in ("dev", "eval") if "test" in args.splits else ("dev",):
        for sound, labels, split in read_fsd50k(args.corpus_dir, part):
            if split not in SPLITS:
                raise ReleaseError(
                    f"{args.corpus_dir}: clip {sound} of {part}.csv is of split {split!r}, not train or val"
                )
            path = audio.path(f"FSD50K.{part}_audio/{sound}.wav")
            yield LabelledClip(freesound_key(sound), path, SPLITS[split], {"labels": labels})


CORPUS = LabelledCorpus(name="fsd50k", home=FSD50K_HOME, read=read)

if __name__ == "__main__":
    run_main(lambda: run_labelled(CORPUS, __doc__))
