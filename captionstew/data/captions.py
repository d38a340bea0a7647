"""Captions: whitespace and hidden characters, and which one a clip is trained with in an epoch."""

import re
from collections.abc import Sequence

from captionstew.hashing import stable_hash

# Control characters, soft hyphens, zero-width blanks, marks of direction and byte order, halves of
# characters. Joiners (U+200C, U+200D) stay: Persian, Indian scripts and emoji need them.
HIDDEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\uffff\ud800-\udfff]"
)


def normalise_caption(caption: str) -> str:
    """Hidden characters are removed; runs of white space (line breaks too) become one blank, none
    remains at the ends.
    """
    return " ".join(HIDDEN.sub("", caption).split())


def has_hidden_characters(caption: str) -> bool:
    """Whether `normalise_caption` removes more than white space."""
    return HIDDEN.search(caption) is not None


def choose_caption(captions: Sequence[str], audio_key: str, seed: int, epoch: int) -> str:
    """The caption that a clip is trained with in `epoch`.

    A hash of (seed, epoch, audio_key) decides, so the choice does not depend on workers, ranks,
    batches or on what was drawn before: a resumed run sees the same captions.
    """
    if len(captions) == 1:
        return captions[0]
    return captions[stable_hash(seed, epoch, audio_key) % len(captions)]
