"""NSynth: single notes of 4 s; which of eleven families is the instrument of? Engel et al., 2017.

Release: https://magenta.tensorflow.org/datasets/nsynth (CC BY 4.0), nsynth-{train,valid,test}.jsonwav.tar.gz unpacked
into CORPUS_DIR: nsynth-<split>/examples.json and nsynth-<split>/audio/<note>.wav. Splits: the release's own, 289,205,
12,678 and 4,096 notes; instruments of train are not in the others, and valid and test have no synth_lead: the classes
are eleven all the same. `custom.label` is the family, with which the note's name begins.

    "guitar_acoustic_010-066-100": {"pitch": 66, "instrument_family": 3, "instrument_family_str": "guitar", ...}

    python local/prepare_nsynth.py --corpus-dir download/nsynth --output-dir data/nsynth
"""

import argparse
from collections.abc import Iterator

from captionstew.data.corpus_cli import AudioFolder, Report
from captionstew.data.label_lists import NSYNTH_FAMILIES, NSYNTH_HOME, read_nsynth
from captionstew.data.labelled import LabelledClip, LabelledCorpus, run_labelled
from captionstew.data.programs import run_main


def read(args: argparse.Namespace, report: Report) -> tuple[list[str], Iterator[LabelledClip]]:
    return list(NSYNTH_FAMILIES), clips(args)


def clips(args: argparse.Namespace) -> Iterator[LabelledClip]:
    audio = AudioFolder(args.audio_dir)
    for split in args.splits:
        for note, family in read_nsynth(args.corpus_dir, split):
            path = audio.path(f"nsynth-{split}/audio/{note}.wav")
            yield LabelledClip(f"nsynth:{note}", path, split, {"label": family})


CORPUS = LabelledCorpus(name="nsynth", home=NSYNTH_HOME, read=read)

if __name__ == "__main__":
    run_main(lambda: run_labelled(CORPUS, __doc__))
