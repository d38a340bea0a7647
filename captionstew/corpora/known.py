"""The corpora that are known by name, each with the one module that owns its facts.

What a module has says what the corpus is for: `CORPUS` is read by `local/prepare_corpus.py`,
`evaluation_list(corpora, split)` names what pretraining may not hear.
"""

import importlib
from types import ModuleType

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
    "urbansound8k": "captionstew.corpora.urbansound8k",
    "vggsound": "captionstew.corpora.vggsound",
    "voxceleb2": "captionstew.corpora.voxceleb2",
    "wavcaps": "captionstew.corpora.wavcaps",
}


FOLDERS = {"voxceleb2": "voxceleb"}  # of releases that are not named like the corpus
ONLY_HELD_OUT = ("urbansound8k",)  # evaluation lists alone, nothing to prepare


def load(name: str) -> ModuleType:
    """The module of a known corpus. Raises KeyError for others."""
    return importlib.import_module(MODULES[name])


def folder(name: str) -> str:
    """The folder of a corpus' release among the others."""
    return FOLDERS.get(name, name)


def prepared() -> list[str]:
    """The names that `local/prepare_corpus.py` takes."""
    return [name for name in MODULES if name not in ONLY_HELD_OUT]


def is_evaluated(name: str) -> bool:
    """Whether this is a known corpus with evaluation lists."""
    return name in MODULES and hasattr(load(name), "evaluation_list")


def evaluated() -> list[str]:
    """The names that have evaluation lists."""
    return [name for name in MODULES if is_evaluated(name)]
