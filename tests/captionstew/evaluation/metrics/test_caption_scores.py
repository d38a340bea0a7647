"""Caption metrics equal pycocoevalcap and rouge-score, and worked cases."""

import math

import numpy as np
import pytest

from captionstew.evaluation.metrics.caption_scores import (
    bleu,
    caption_scores,
    cider,
    longest_common_subsequence,
    rouge_l_coco,
    rouge_l_hf,
    rouge_l_per_clip,
)
from captionstew.evaluation.metrics.ptb_tokenizer import ptb_tokenize

EXACT = 1e-9


def split_case(case, key):
    return [row["hyp"] for row in case[key]], [row["refs"] for row in case[key]]


def test_coco_metrics_equal_the_reference(metric_golden, full_golden):
    cases = metric_golden("captions.json")
    assert len(cases) > (20 if full_golden else 15)
    for name, case in cases.items():
        candidates, references = split_case(case, "tokenised")
        golden = case["coco"]
        assert rouge_l_coco(candidates, references) == pytest.approx(
            golden["rouge_l_each"], abs=EXACT
        ), name
        assert np.mean(rouge_l_coco(candidates, references)) == pytest.approx(
            golden["rouge_l"], abs=EXACT
        ), name
        assert bleu(candidates, references) == pytest.approx(golden["bleu"], abs=EXACT), name
        assert cider(candidates, references) == pytest.approx(golden["cider_each"], abs=EXACT), name
        assert np.mean(cider(candidates, references)) == pytest.approx(
            golden["cider"], abs=EXACT
        ), name
        each = np.array([bleu([own], [others]) for own, others in zip(candidates, references)]).T
        assert each == pytest.approx(np.array(golden["bleu_each"]), abs=EXACT), name


def test_rouge_score_equals_the_reference(metric_golden):
    for name, case in metric_golden("captions.json").items():
        candidates, references = split_case(case, case["rouge_score_on"])
        for kind, stem in (("plain", False), ("stemmed", True)):
            scores = rouge_l_hf(candidates, references, use_stemmer=stem)
            assert scores == pytest.approx(
                [row[kind]["best_f"] for row in case["rouge_score"]], abs=EXACT
            ), name
            assert scores.mean() == pytest.approx(case["rouge_score_mean"][kind], abs=EXACT), name


def test_scores_of_real_captions_from_their_text(metric_golden, full_golden):
    cases = {name: case for name, case in metric_golden("captions.json").items() if "raw" in case}
    if not full_golden:
        pytest.skip("reference data not found: captions as written are in the full set alone")
    assert len(cases) >= 5
    for name, case in cases.items():
        candidates, references = split_case(case, "raw")
        scores = caption_scores(candidates, references)
        assert (
            scores["rouge_l"]
            == scores["rouge_l_coco"]
            == pytest.approx(case["coco"]["rouge_l"], abs=EXACT)
        ), name
        assert scores["rouge_l_hf"] == pytest.approx(
            case["rouge_score_mean"]["plain"], abs=EXACT
        ), name
        assert [scores[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx(
            case["coco"]["bleu"], abs=EXACT
        ), name
        assert scores["cider"] == pytest.approx(case["coco"]["cider"], abs=EXACT), name
        assert rouge_l_per_clip(candidates, references) == pytest.approx(
            case["coco"]["rouge_l_each"], abs=EXACT
        )


def test_words_equal_stanfords(metric_golden, full_golden):
    cases = metric_golden("ptb.json")
    wrong = [case["text"] for case in cases if ptb_tokenize(case["text"]) != case["tokens"]]
    assert len(cases) > (250 if full_golden else 20) and not wrong


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A dog barks, then a man says: 'Hello!'", "a dog barks then a man says hello"),
        ("The speaker’s low-pitched voice can't be heard (50% noise)...", None),
        ("  ", ""),
        ("Dr. Who, at 4/4 and 84.5 bpm.", "dr. who at 4/4 and 84.5 bpm"),
        ("rain \U0001f327 falls", "rain falls"),
        ("one\ttwo\nthree", "one two three"),
    ],
)
def test_words(caption, words):
    expected = (
        "the speaker 's low-pitched voice ca n't be heard -lrb- 50 % noise -rrb-"
        if words is None
        else words
    )
    assert ptb_tokenize(caption) == expected


def test_worked_rouge_l():
    """Of `a dog barks`, `a dog is barking` keeps two words in order: P = 2/3, R = 2/4. `dog`: P =
    1/3, R = 1.

    The best P is 2/3 and the best R is 1, so F = 2.44 x 2/3 / (1 + 1.44 x 2/3) = 0.8299...; F1 of
    the first reference alone is 4/7 and of the second 1/2.
    """
    scores = caption_scores(["A dog barks."], [["A dog is barking", "Dog"]])
    assert scores["rouge_l"] == pytest.approx(2.44 * 2 / 3 / (1 + 1.44 * 2 / 3))
    assert scores["rouge_l_hf"] == pytest.approx(4 / 7)


def test_worked_bleu_and_cider():
    """`the the the` against `the cat`: one of three unigrams counts, no bigram. CIDEr of one clip
    is 0.
    """
    scores = caption_scores(["the the the"], [["the cat"]])
    assert scores["bleu_1"] == pytest.approx(1 / 3) and scores["bleu_2"] == pytest.approx(
        0, abs=1e-6
    )
    assert scores["cider"] == 0.0
    short = caption_scores(["rain"], [["rain falls on tin"]])
    assert short["bleu_1"] == pytest.approx(math.exp(1 - 4))
    # Two clips of one word each, told apart by it: the cosine of unigrams is 1, there are no longer
    # n-grams.
    assert caption_scores(["dog", "rain"], [["dog"], ["rain"]])["cider"] == pytest.approx(10 / 4)


def test_longest_common_subsequence_equals_the_table():
    generator = np.random.default_rng(0)
    for _ in range(50):
        first, second = (
            list(map(str, generator.integers(0, 4, generator.integers(0, 80)))) for _ in range(2)
        )
        table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
        for i, a in enumerate(first):
            for j, b in enumerate(second):
                table[i + 1, j + 1] = (
                    table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
                )
        assert longest_common_subsequence(first, second) == table[-1, -1]


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ([], [], "0 captions cannot be scored"),
        (["a"], [["a"], ["b"]], "1 captions cannot be scored against the references of 2"),
        (["a", "b"], [["a"], []], "clip 1: expected a list"),
        (["a"], ["a"], "clip 0: expected a list"),
    ],
)
def test_what_cannot_be_scored(candidates, references, message):
    for score in (caption_scores, rouge_l_per_clip):
        with pytest.raises(ValueError, match=message):
            score(candidates, references)
