"""Who trains, who validates, who tests: the one rule for a user's clips.

In this order: the column `split`; else `fold`, of which the two highest are held out; else whole
speakers and, without those, single clips, drawn by a hash that does not depend on other clips.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from captionstew.corpora.own.csv_rows import FolderError
from captionstew.hashing import stable_hash

SPLITS = ("train", "valid", "test")
HELD_OUT_PERCENT = 10  # of the clips without split and fold, for each of validation and test
SPELLINGS = {
    "train": ("train", "training", "tr", "trn"),
    "valid": ("valid", "validation", "val", "dev", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "holdout"),
}
_SPLIT_OF = {word: split for split, words in SPELLINGS.items() for word in words}


def parse_split(text: str, table: Path, line: int) -> str:
    """One of SPLITS from any usual spelling. Raises FolderError with file and line for another
    word.
    """
    try:
        return _SPLIT_OF[text.strip().lower()]
    except KeyError:
        known = ", ".join(_SPLIT_OF)
        raise FolderError(f"{table}, line {line}: split {text!r} is none of {known}") from None


def parse_fold(text: str) -> int | None:
    """`1`, `1.0` and `01` are 1; None for what is no whole number from 0 up."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() and value >= 0 else None


def held_out_folds(folds: Mapping[str, set[int]]) -> dict[str, tuple[set[int], set[int]]]:
    """source -> (validation folds, test folds): the second highest and the highest of the corpus.

    Sources may count from 0 or from 1: their folds are compared by their place, so that folds 0 to
    4 of one source and 1 to 5 of another are the same five.
    """
    shift = {source: int(0 in numbers) for source, numbers in folds.items()}
    places = sorted({fold + shift[source] for source, numbers in folds.items() for fold in numbers})
    valid, test = places[-2:-1], places[-1:]
    return {
        source: ({fold - shift[source] for fold in valid}, {fold - shift[source] for fold in test})
        for source in folds
    }


def choose_splits(
    clips: Sequence[tuple[str, str, Mapping]],
    valid_folds: Sequence[int] | None = None,
    test_folds: Sequence[int] | None = None,
) -> list[str]:
    """The split of each clip, given as (source, key, facts); None takes the two highest folds.

    Raises ValueError when a fold is asked for twice.
    """
    both = set(valid_folds or ()) & set(test_folds or ())
    if both:
        raise ValueError(f"folds {sorted(both)} are both validation and test")
    folds: dict[str, set[int]] = {}
    for source, _, facts in clips:
        if facts.get("fold") is not None:
            folds.setdefault(source, set()).add(facts["fold"])
    highest = held_out_folds(folds)
    return [
        _split(key, facts, highest.get(source, (set(), set())), valid_folds, test_folds)
        for source, key, facts in clips
    ]


def _split(
    key: str,
    facts: Mapping,
    highest: tuple[set[int], set[int]],
    valid_folds: Sequence[int] | None,
    test_folds: Sequence[int] | None,
) -> str:
    if facts.get("split"):
        return facts["split"]
    if facts.get("fold") is not None:
        valid = highest[0] - set(test_folds or ()) if valid_folds is None else set(valid_folds)
        test = highest[1] - set(valid_folds or ()) if test_folds is None else set(test_folds)
        return "test" if facts["fold"] in test else "valid" if facts["fold"] in valid else "train"
    percent = stable_hash("split", facts.get("speaker") or key) % 100
    if percent < HELD_OUT_PERCENT:
        return "test"
    return "valid" if percent < 2 * HELD_OUT_PERCENT else "train"
