"""Captions: whitespace, and which one a clip is trained with in an epoch."""

from collections.abc import Sequence

from captionstew.hashing import stable_hash


def normalise_caption(caption: str) -> str:
    """Runs of white space (line breaks too) become one blank, none remains at the ends."""
    return " ".join(caption.split())


def choose_caption(captions: Sequence[str], audio_key: str, seed: int, epoch: int) -> str:
    """The caption that a clip is trained with in `epoch`.

    A hash of (seed, epoch, audio_key) decides, so the choice does not depend on workers, ranks,
    batches or on what was drawn before: a resumed run sees the same captions.
    """
    if len(captions) == 1:
        return captions[0]
    return captions[stable_hash(seed, epoch, audio_key) % len(captions)]
