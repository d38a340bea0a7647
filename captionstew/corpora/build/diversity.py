"""Lexical statistics of a text collection: vocabulary, mean length, distinct-n (the paper's Table
4).

distinct-n = different n-grams / all n-grams over the whole collection, n-grams inside one caption
(Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models", section
5). It falls as a collection grows: compare collections of equal size only, and state the
tokenisation.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

MAX_ORDER = 4
CHUNK = 50_000  # captions counted at a time
COMPACT_AT = 40_000_000  # n-grams waiting (8 bytes each) before doubles are removed

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*")
TOKENISATIONS = {
    "words": "lower case, then all matches of [a-z0-9]+(?:'[a-z0-9]+)*",
    "whitespace": "lower case, split at white space",
}


def tokenise(text: str, tokenisation: str = "words") -> list[str]:
    """The tokens of a caption; `tokenisation` is a key of TOKENISATIONS."""
    if tokenisation == "words":
        return _WORD.findall(text.lower())
    if tokenisation == "whitespace":
        return text.lower().split()
    raise ValueError(f"tokenisation {tokenisation!r} is none of {', '.join(TOKENISATIONS)}")


class _Distinct:
    """Counts different 64-bit values of a long stream; memory grows with the number of different
    ones.
    """

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._waiting = 0

    def add(self, values: np.ndarray) -> None:
        self._parts.append(np.unique(values))
        self._waiting += len(self._parts[-1])
        if self._waiting > COMPACT_AT:
            self._compact()

    def _compact(self) -> None:
        self._parts = [np.unique(np.concatenate(self._parts))] if self._parts else []
        self._waiting = 0

    def count(self) -> int:
        self._compact()
        return len(self._parts[0]) if self._parts else 0


def diversity(captions: Iterable[str], tokenisation: str = "words") -> dict:
    """Counts over all captions: `captions, tokens, vocabulary, mean_length` and, for n = 1 to 4,
    `ngramsN` (all), `uniqueN` (different) and `distinctN` (their ratio, None without n-grams).

    n-grams are told apart by a 64-bit hash of their words' numbers: of 100M different ones, none
    coincide with a probability of 99.97 %.
    """
    vocabulary: dict[str, int] = {}
    distinct = [_Distinct() for _ in range(MAX_ORDER)]
    totals = np.zeros(MAX_ORDER, np.int64)
    count = 0
    captions = iter(captions)
    while chunk := list(islice(captions, CHUNK)):
        count += len(chunk)
        for order, hashes in enumerate(_ngram_hashes(chunk, vocabulary, tokenisation)):
            totals[order] += len(hashes)
            distinct[order].add(hashes)
    result: dict[str, float | None] = {
        "captions": count,
        "tokens": int(totals[0]),
        "vocabulary": len(vocabulary),
    }
    result["mean_length"] = int(totals[0]) / count if count else 0.0
    for order in range(MAX_ORDER):
        total, unique = int(totals[order]), distinct[order].count()
        result |= {f"ngrams{order + 1}": total, f"unique{order + 1}": unique}
        result[f"distinct{order + 1}"] = unique / total if total else None
    return result


def _ngram_hashes(
    chunk: list[str], vocabulary: dict[str, int], tokenisation: str
) -> Iterator[np.ndarray]:
    """For n = 1 to 4 the hashes of the chunk's n-grams, none across a border between captions."""
    tokens = [tokenise(text, tokenisation) for text in chunk]
    lengths = np.array([len(words) for words in tokens], np.int64)
    numbers = (vocabulary.setdefault(word, len(vocabulary)) for words in tokens for word in words)
    ids = np.fromiter(numbers, np.uint64, int(lengths.sum()))
    owner = np.repeat(np.arange(len(tokens)), lengths)
    hashes = _mix(ids)
    for order in range(MAX_ORDER):
        if order:
            hashes = _mix(
                hashes[:-1] ^ (ids[order:] + np.uint64(order)) * np.uint64(0x9E3779B97F4A7C15)
            )
            yield (
                hashes[owner[order:] == owner[: len(owner) - order]]
                if len(owner) > order
                else hashes[:0]
            )
        else:
            yield hashes


def _mix(values: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit numbers that spreads them (the finaliser of SplitMix64, Steele et al.
    2014).
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
