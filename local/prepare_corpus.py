#!/usr/bin/env python3
"""Read one corpus as it is released: captions or questions into a table, labelled clips into
manifests.

python local/prepare_corpus.py audiocaps --corpus-dir download/audiocaps --output-dir data/tables
python local/prepare_corpus.py nsynth --corpus-dir download/nsynth --output-dir data/nsynth
python local/prepare_corpus.py audiocaps --help        where the release lives, and the flags of its reader
"""

import importlib
import sys

from captionstew.corpora.captioned import Corpus, run
from captionstew.corpora.labelled import run_labelled
from captionstew.errors import UserError, run_main

MODULES = {
    "airbench": "captionstew.corpora.airbench",
    "audiocaps": "captionstew.corpora.audiocaps",
    "audioset": "captionstew.corpora.audioset",
    "audioset_strong": "captionstew.corpora.audioset_strong",
    "audiosetcaps": "captionstew.corpora.audiosetcaps",
    "clotho": "captionstew.corpora.clotho",
    "clothoaqa": "captionstew.corpora.clothoaqa",
    "cremad": "captionstew.corpora.cremad",
    "fsd50k": "captionstew.corpora.fsd50k",
    "fusionaudio": "captionstew.corpora.fusionaudio",
    "jamendomaxcaps": "captionstew.corpora.jamendomaxcaps",
    "magnatagatune": "captionstew.corpora.magnatagatune",
    "mini": "captionstew.corpora.mini.caption_rows",
    "musiccaps": "captionstew.corpora.musiccaps",
    "musicqa": "captionstew.corpora.musicqa",
    "nsynth": "captionstew.corpora.nsynth",
    "own": "captionstew.corpora.own.caption_rows",
    "ownqa": "captionstew.corpora.own.question_rows",
    "paraspeechcaps": "captionstew.corpora.paraspeechcaps",
    "speakerqa": "captionstew.corpora.speakerqa",
    "vggsound": "captionstew.corpora.vggsound",
    "voxceleb2": "captionstew.corpora.voxceleb2",
    "wavcaps": "captionstew.corpora.wavcaps",
}


def main(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: prepare_corpus.py CORPUS [flags]\n\n{__doc__}\nCORPUS: {' '.join(MODULES)}")
        return
    if argv == ["--list"]:
        print("\n".join(MODULES))
        return
    name, *flags = argv
    if name not in MODULES:
        raise UserError(
            f"{name} is not a corpus that is known here; known are {', '.join(MODULES)}"
        )
    module = importlib.import_module(MODULES[name])
    if hasattr(module, "main"):
        module.main(flags)
    elif isinstance(module.CORPUS, Corpus):
        run(module.CORPUS, module.__doc__, flags)
    else:
        run_labelled(module.CORPUS, module.__doc__, flags)


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
