"""ROUGE-L, BLEU and CIDEr of generated captions, without Java.

    caption_scores(["a dog barks"], [["a dog is barking", "barking of a dog"]])["rouge_l"]

BLEU, CIDEr and `rouge_l_coco` are those of the COCO caption evaluation, on Penn-Treebank words
(`ptb_tokenizer`). `rouge_l_hf` is the rouge-score package's, which is F1 on words of a-z and 0-9.
The paper does not say which of the two it prints; `rouge_l` is COCO's, which is what audio
captioning reports. Scores are shares in [0, 1], CIDEr in [0, 10].

In scripts that put no blanks between words (Chinese, Japanese, Thai, ...) all of them count
characters (`caption_units`), and a line says so.
"""

import logging
import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from captionstew.evaluation.metrics.ptb_tokenizer import ptb_tokenize

ROUGE_BETA = 1.2
MAX_ORDER = 4  # of n-grams, in BLEU and CIDEr
CIDER_SIGMA = 6.0  # of the penalty on differences of length
# Letters of scripts without blanks: Thai, Lao, Tibetan, Burmese, Khmer, kana, Chinese.
UNSPACED = re.compile(
    r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)
UNSPACED_PUNCTUATION = re.compile(
    r"[\u3000-\u3003\u3008-\u3011\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f]"
)
TINY, SMALL = 1e-15, 1e-9  # COCO's BLEU adds them to numerators and denominators


def caption_scores(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Captions of N clips and the references of each -> every metric, over the corpus.

    Raises:
      ValueError: no clip, a clip without reference, or candidates and references of different
          number.
    """
    _check(candidates, references)
    if caption_units(references) == "characters":
        logging.warning(
            "the captions' script has no blanks between words: ROUGE, BLEU and CIDEr count"
            " characters"
        )
    words, reference_words = _tokenize(candidates, references)
    rouge = float(np.mean(rouge_l_coco(words, reference_words)))
    return {
        "rouge_l": rouge,
        "rouge_l_coco": rouge,
        "rouge_l_hf": float(np.mean(rouge_l_hf(candidates, references))),
        **{f"bleu_{n}": value for n, value in enumerate(bleu(words, reference_words), start=1)},
        "cider": float(np.mean(cider(words, reference_words))),
    }


def rouge_l_per_clip(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """`rouge_l` of each clip (N,), for bootstrap intervals; raises as `caption_scores`."""
    _check(candidates, references)
    return rouge_l_coco(*_tokenize(candidates, references))


def caption_units(references: Sequence[Sequence[str]]) -> str:
    """What is counted of captions: "words", or "characters" where most letters of the references
    are of scripts without blanks.
    """
    texts = [text for own in references for text in own]
    letters = sum(letter.isalpha() for text in texts for letter in text)
    unspaced = sum(len(UNSPACED.findall(text)) for text in texts)
    return "characters" if 2 * unspaced > letters else "words"


def rouge_l_coco(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """ROUGE-L of each clip (N,), of captions that are already tokenised.

    Lin 2004, as COCO computes it: P and R are the longest common subsequence over the length of the
    candidate and of the reference, each the best over the references; F = (1 + b^2) P R / (R + b^2
    P). An empty caption is one empty word.
    """
    scores = []
    for candidate, own in zip(candidates, references):
        words = candidate.split(" ")
        others = [reference.split(" ") for reference in own]
        common = [longest_common_subsequence(words, other) for other in others]
        precision = max(common) / len(words)
        recall = max(length / len(other) for length, other in zip(common, others))
        weight = ROUGE_BETA**2
        scores.append(
            (1 + weight) * precision * recall / (recall + weight * precision)
            if precision * recall
            else 0.0
        )
    return np.array(scores)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Its length. A row of the usual table is kept as the bits of one integer (Hyyro 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    mask = (1 << len(first)) - 1
    row = mask
    for word in second:
        hits = row & places.get(word, 0)
        row = ((row + hits) | (row - hits)) & mask
    return len(first) - row.bit_count()


def rouge_l_hf(
    candidates: Sequence[str], references: Sequence[Sequence[str]], use_stemmer: bool = False
) -> np.ndarray:
    """F1 of each clip (N,) by the rouge-score package; of several references the best.

    The package drops all but a-z and 0-9: where that would be most letters of the references, it
    gets the words (or characters) of the other metrics.
    """
    from rouge_score.rouge_scorer import RougeScorer

    texts = [text for own in references for text in own]
    letters = sum(letter.isalpha() for text in texts for letter in text)
    latin = sum(letter.isascii() and letter.isalpha() for text in texts for letter in text)
    other = _Splitter(caption_units(references)) if 2 * latin < letters else None
    scorer = RougeScorer(["rougeL"], use_stemmer=use_stemmer, tokenizer=other)
    scores = [
        scorer.score_multi(own, candidate)["rougeL"].fmeasure
        for candidate, own in zip(candidates, references)
    ]
    return np.array(scores)


class _Splitter:
    """Words of a text, as the rouge-score package asks for them."""

    def __init__(self, units: str) -> None:
        self.units = units

    def tokenize(self, text: str) -> list[str]:
        return _split(text, self.units).split()


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """BLEU-1 .. BLEU-4 of a corpus of tokenised captions.

    Papineni et al. 2002: geometric mean of the clipped n-gram precisions of the whole corpus, times
    exp(1 - reference length / candidate length) where candidates are shorter. The reference that
    counts is the one closest in length, of two the shorter.
    """
    matched, total = np.zeros(MAX_ORDER), np.zeros(MAX_ORDER)
    length = reference_length = 0
    for candidate, own in zip(candidates, references):
        words = candidate.split()
        others = [reference.split() for reference in own]
        length += len(words)
        reference_length += min((abs(len(other) - len(words)), len(other)) for other in others)[1]
        for n in range(1, MAX_ORDER + 1):
            most: Counter[tuple[str, ...]] = Counter()
            for other in others:
                most |= ngrams(other, n)
            counts = ngrams(words, n)
            matched[n - 1] += (counts & most).total()
            total[n - 1] += counts.total()
    ratio = (length + TINY) / (reference_length + SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    products = np.cumprod((matched + TINY) / (total + SMALL))
    return [float(products[n - 1] ** (1 / n) * brevity) for n in range(1, MAX_ORDER + 1)]


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """CIDEr-D of each clip (N,), of tokenised captions.

    Vedantam et al. 2015, section 4 and 5: cosines of tf-idf vectors of n-grams, n = 1..4, the
    candidate's clipped to the reference's, times a Gaussian of the difference in length, times 10.
    Document frequencies come from the references of the clips that are scored, so one clip alone
    scores 0, and a part of a corpus differs from the whole.
    """
    frequency: Counter = Counter()
    for own in references:
        frequency.update({gram for reference in own for gram in _all_ngrams(reference)})
    log_clips = math.log(len(references))

    def vectors(caption: str) -> tuple[list[dict[tuple[str, ...], float]], list[float], int]:
        counts = [ngrams(caption.split(), n) for n in range(1, MAX_ORDER + 1)]
        weights = [
            {
                gram: count * (log_clips - math.log(max(1, frequency[gram])))
                for gram, count in order.items()
            }
            for order in counts
        ]
        norms = [math.sqrt(sum(value**2 for value in order.values())) for order in weights]
        return weights, norms, counts[1].total()  # COCO's code takes the bigrams as the length

    scores = []
    for candidate, own in zip(candidates, references):
        weights, norms, length = vectors(candidate)
        score = 0.0
        for other_weights, other_norms, other_length in map(vectors, own):
            cosines = [
                sum(
                    min(value, other.get(gram, 0.0)) * other.get(gram, 0.0)
                    for gram, value in mine.items()
                )
                / (norm * other_norm or 1.0)
                for mine, other, norm, other_norm in zip(weights, other_weights, norms, other_norms)
            ]
            score += float(np.mean(cosines)) * math.exp(
                -((length - other_length) ** 2) / (2 * CIDER_SIGMA**2)
            )
        scores.append(10 * score / len(own))
    return np.array(scores)


def ngrams(words: Sequence[str], n: int) -> Counter:
    """Counts of the runs of n words."""
    return Counter(zip(*(words[start:] for start in range(n))))


def _all_ngrams(caption: str) -> set[tuple[str, ...]]:
    words = caption.split()
    return {gram for n in range(1, MAX_ORDER + 1) for gram in ngrams(words, n)}


def _tokenize(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    units = caption_units(references)
    return [_split(text, units) for text in candidates], [
        [_split(text, units) for text in own] for own in references
    ]


def _split(text: str, units: str) -> str:
    """The units of a text, joined by single blanks."""
    if units == "characters":
        text = UNSPACED.sub(r" \g<0> ", UNSPACED_PUNCTUATION.sub(" ", text))
    return ptb_tokenize(text)


def _check(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(candidates) != len(references) or not candidates:
        raise ValueError(
            f"{len(candidates)} captions cannot be scored against the references of"
            f" {len(references)}"
        )
    for number, own in enumerate(references):
        if isinstance(own, str) or not own:
            raise ValueError(
                f"clip {number}: expected a list of one or more reference captions, got {own!r}"
            )
