"""Metrics equal the reference values, and a worked example of what counts as found."""

import numpy as np
import pytest
import torch

from captionstew.evaluation.metrics.bootstrap import (
    bootstrap_interval,
    bootstrap_interval_of_groups,
    bootstrap_interval_of_mean,
)
from captionstew.evaluation.metrics.classification import (
    accuracy,
    class_average_precisions,
    class_roc_aucs,
    mean_average_precision,
    mean_class_recall,
)
from captionstew.evaluation.metrics.retrieval import (
    RetrievalRanks,
    chance_metrics,
    recall_at_k,
    relevance,
    retrieval_metrics,
    retrieval_ranks,
)
from captionstew.evaluation.retrieval import EmbeddedClips, ranking_report, zero_shot_accuracy

RETRIEVAL_CASES = [
    "random_c5",
    "random_c1",
    "informed_c5",
    "unnormalised_c5",
    "audiocaps_size",
    "five_hundred_c1",
    "two_captions",
    "perfect_c5",
    "worst_c5",
    "single_clip_c5",
    "single_clip_c1",
    "three_clips_c5",
    "two_clips_c1",
    "duplicate_captions_c5",
    "duplicate_captions_c1",
    "quantised_c5",
    "all_equal_c5",
    "all_equal_c1",
    "zero_embedding_c5",
    "ragged",
]
TAGGING_CASES = [
    "random",
    "informed",
    "ties_five_levels",
    "negated",
    "constant",
    "empty_full_single",
    "single_clip",
    "two_clips_tied",
    "wide_logits",
    "wide_logits_saturated",
    "fsd50k",
    "audioset",
    "magnatagatune",
]
# Of two clips, three captions and three clips: see test_worked_example.
SIMILARITY = np.array(
    [[0.8, 0.1, 0.5, 0.2, 0.9], [0.3, 0.6, 0.4, 0.7, 0.2], [0.7, 0.2, 0.3, 0.1, 0.85]]
)
CAPTION_CLIPS = [0, 0, 1, 2, 2]
CAPTIONS = ["A dog  barks", "Barking", "Rain", "Wind", "a dog barks"]


def unit(x):
    x = x.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def similarity_of(arrays, name):
    """(clips, captions) as given, or the cosines of embeddings, computed the way the recipes do."""
    if f"{name}__similarity" in arrays:
        return arrays[f"{name}__similarity"]
    audio, text = unit(arrays[f"{name}__audio"]), unit(arrays[f"{name}__text"])
    return EmbeddedClips(audio, text, [], [], [], [], []).similarity


@pytest.mark.parametrize("name", RETRIEVAL_CASES)
def test_retrieval_equals_the_reference(metric_golden, name):
    arrays, case = metric_golden("retrieval.npz"), metric_golden("retrieval.json")[name]
    counts = case["captions_per_clip"]
    counts = counts if isinstance(counts, list) else [counts] * case["clips"]
    caption_clips = np.repeat(np.arange(case["clips"]), counts)
    ranks = retrieval_ranks(similarity_of(arrays, name), relevance(caption_clips))
    ours = retrieval_metrics(ranks)
    for direction in ("text_to_audio", "audio_to_text"):
        if case["ties_with_the_right_answer"][direction] == 0:
            expected = case["later_index_first"][direction]
            for ours_name, golden_name in (("r1",) * 2, ("r5",) * 2, ("r10",) * 2, ("map10",) * 2):
                assert 100 * ours[f"{direction}_{ours_name}"] == pytest.approx(
                    expected[golden_name], abs=1e-6
                )
            assert ours[f"{direction}_median_rank"] == expected["medr"]
        else:
            for k in (1, 5, 10):
                worst, _ = case["bounds"][direction][f"r{k}"]
                assert 100 * ours[f"{direction}_r{k}"] == pytest.approx(worst, abs=1e-6), (
                    direction,
                    k,
                )
    if case["ties_with_the_right_answer"]["text_to_audio"] == 0:
        assert (ranks.text_to_audio == arrays[f"{name}__text_to_audio_ranks"]).all()
    if case["ties_with_the_right_answer"]["audio_to_text"] == 0:
        assert (ranks.audio_to_text == arrays[f"{name}__audio_to_text_best_ranks"]).all()


def test_all_golden_retrieval_cases_are_compared(metric_golden):
    assert set(metric_golden("retrieval.json")) == set(RETRIEVAL_CASES)


def test_worked_example_strict():
    """Clips 0, 1, 2 with captions (a, b), (c), (d, e).

    Text to audio, rank of the own clip in the caption's column: a .8 is first: 0. b .1 of (.1, .6,
    .2): 2. c .4 of (.5, .4, .3): 1. d .1 of (.2, .7, .1): 2. e .85 of (.9, .2, .85): 1. So R@1 =
    1/5, and mAP@10 = (1 + 1/3 + 1/2 + 1/3 + 1/2) / 5; the median of 0 1 1 2 2 is 1, counted from
    one 2.

    Audio to text: clip 0 sees e a c d b, its own at 1 and 4: rank 1, AP = (1/2 + 2/5) / 2. Clip 1
    sees d b c: rank 2, AP 1/3. Clip 2 sees e a c b d, its own at 0 and 4: rank 0, AP = (1/1 + 2/5)
    / 2. R@1 = 1/3.
    """
    ranks = retrieval_ranks(SIMILARITY, relevance(CAPTION_CLIPS))
    assert ranks.text_to_audio.tolist() == [0, 2, 1, 2, 1]
    assert ranks.audio_to_text.tolist() == [1, 2, 0]
    metrics = retrieval_metrics(ranks)
    assert metrics["text_to_audio_r1"] == pytest.approx(1 / 5)
    assert metrics["text_to_audio_map10"] == pytest.approx((1 + 1 / 3 + 1 / 2 + 1 / 3 + 1 / 2) / 5)
    assert metrics["text_to_audio_median_rank"] == 2
    assert metrics["audio_to_text_r1"] == pytest.approx(1 / 3)
    assert metrics["audio_to_text_map10"] == pytest.approx((0.45 + 1 / 3 + 0.7) / 3)
    assert metrics["text_to_audio_r5"] == metrics["audio_to_text_r10"] == 1.0


def test_worked_example_match():
    """As above, but a and e are the same words, so both are right for clips 0 and 2.

    Text to audio: e's best right clip is now clip 0, rank 0; a and e have both right clips first,
    AP = 1. Audio to text: clip 0 sees e a c d b, right at 0, 1 and 4: AP = (1 + 2/2 + 3/5) / 3;
    clip 2 likewise.
    """
    relevant = relevance(CAPTION_CLIPS, CAPTIONS)
    assert relevant.tolist() == [
        [True, True, False, False, True],
        [False, False, True, False, False],
        [True, False, False, True, True],
    ]
    ranks = retrieval_ranks(SIMILARITY, relevant)
    assert ranks.text_to_audio.tolist() == [0, 2, 1, 2, 0]
    assert ranks.audio_to_text.tolist() == [0, 2, 0]
    metrics = retrieval_metrics(ranks)
    assert metrics["text_to_audio_r1"] == pytest.approx(2 / 5)
    assert metrics["text_to_audio_map10"] == pytest.approx((1 + 1 / 3 + 1 / 2 + 1 / 3 + 1) / 5)
    assert metrics["audio_to_text_r1"] == pytest.approx(2 / 3)
    assert metrics["audio_to_text_map10"] == pytest.approx((2.6 / 3 + 1 / 3 + 2.6 / 3) / 3)


def test_a_constant_embedding_finds_nothing():
    ranks = retrieval_ranks(np.zeros((30, 30)), relevance(range(30)))
    assert recall_at_k(ranks.text_to_audio, 10) == recall_at_k(ranks.audio_to_text, 10) == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_broken_similarities_raise(value):
    similarity = SIMILARITY.copy()
    similarity[1, 2] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        retrieval_ranks(similarity, relevance(CAPTION_CLIPS))
    with pytest.raises(ValueError, match="shape"):
        retrieval_ranks(SIMILARITY[:, :4], relevance(CAPTION_CLIPS))


def test_chance_of_a_perfect_model_is_that_of_guessing():
    """Of 200 clips, a random permutation puts the right one into the first ten with probability
    10/200.
    """
    similarity = np.eye(200) + np.random.default_rng(0).uniform(0, 0.1, (200, 200))
    relevant = relevance(range(200))
    assert recall_at_k(retrieval_ranks(similarity, relevant).text_to_audio, 10) == 1.0
    chance = chance_metrics(similarity, relevant, seed=1)
    deviation = (0.05 * 0.95 / (200 * 20)) ** 0.5
    for direction in ("text_to_audio", "audio_to_text"):
        assert abs(chance[f"{direction}_r10"] - 0.05) < 4 * deviation
    assert chance == chance_metrics(similarity, relevant, seed=1)
    assert chance != chance_metrics(similarity, relevant, seed=2)


def test_chance_counts_repeated_captions():
    """Where all clips share one caption, matching makes every answer right, also by chance."""
    relevant = relevance(range(20), ["rain"] * 20)
    chance = chance_metrics(np.random.default_rng(0).normal(size=(20, 20)), relevant, seed=0)
    assert chance["text_to_audio_r1"] == chance["audio_to_text_r1"] == 1.0
    assert chance["text_to_audio_map10"] == 0.5  # of twenty right answers ten fit


@pytest.mark.parametrize("name", ["nsynth", "vggsound", "crema", "ties", "one_clip"])
def test_accuracy_equals_the_reference(metric_golden, name):
    arrays = metric_golden("tagging.npz")
    scores, labels = arrays[f"accuracy_{name}__scores"], arrays[f"accuracy_{name}__targets"]
    case = metric_golden("accuracy.json")[name]
    assert accuracy(scores, labels) == case["accuracy"]
    assert mean_class_recall(scores, labels) == pytest.approx(
        case["mean_per_class_recall"], abs=1e-12
    )


def test_accuracy_takes_the_first_of_equal_scores_and_refuses_what_is_broken():
    assert accuracy(np.zeros((4, 3)), np.array([0, 0, 1, 2])) == 0.5
    with pytest.raises(ValueError, match="NaN or infinite"):
        accuracy(np.array([[0.0, np.nan]]), np.array([0]))
    with pytest.raises(ValueError, match="0 clips have scores"):
        accuracy(np.zeros((0, 3)), np.zeros(0))
    with pytest.raises(ValueError, match="2 clips have scores and 1"):
        accuracy(np.zeros((2, 3)), np.zeros(1))


@pytest.mark.parametrize("name", TAGGING_CASES)
def test_mean_average_precision_equals_the_reference(metric_golden, name):
    arrays, case = metric_golden("tagging.npz"), metric_golden("tagging.json")[name]
    scores, targets = arrays[f"{name}__scores"].astype(np.float64), arrays[f"{name}__targets"]
    value, classes = mean_average_precision(scores, targets)
    assert value == pytest.approx(case["mean_over_classes_with_positive"], abs=1e-9)
    assert classes == case["shape"][1] - case["classes_without_positive"]
    each = class_average_precisions(scores, targets)
    assert np.isnan(each).sum() == case["classes_without_positive"]
    assert np.nan_to_num(each) == pytest.approx(
        case["average_precision"], abs=1e-9
    )  # the reference says 0 there
    areas = np.array([float(area) for area in case["roc_auc"]])
    assert class_roc_aucs(scores, targets) == pytest.approx(areas, abs=1e-9, nan_ok=True)


def test_every_golden_tagging_and_accuracy_case_is_compared(metric_golden):
    assert set(metric_golden("tagging.json")) == set(TAGGING_CASES)
    assert len(metric_golden("accuracy.json")) == 5


def test_worked_average_precision():
    """Scores .9 .8 .7 .6, right first and third: AP = (1 + 2/3) / 2. All tied: two of four are
    right, AP = 1/2.

    A class of one positive clip alone is 1, and a class without positives has no value and does not
    count.
    """
    targets = np.array([[1, 1, 1, 0], [0, 0, 1, 0], [1, 1, 1, 0], [0, 0, 1, 0]])
    scores = np.array(
        [[0.9, 0.5, 0.1, 0.4], [0.8, 0.5, 0.2, 0.3], [0.7, 0.5, 0.3, 0.2], [0.6, 0.5, 0.4, 0.1]]
    )
    each = class_average_precisions(scores, targets)
    assert each[:3] == pytest.approx([(1 + 2 / 3) / 2, 0.5, 1.0]) and np.isnan(each[3])
    assert mean_average_precision(scores, targets) == (pytest.approx(each[:3].mean()), 3)
    assert mean_average_precision(np.array([[0.2, 0.7]]), np.array([[1, 0]])) == (1.0, 1)


def test_mean_average_precision_refuses_what_has_no_answer():
    with pytest.raises(ValueError, match="no class has a positive"):
        mean_average_precision(np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="NaN or infinite"):
        mean_average_precision(np.full((3, 2), np.nan), np.ones((3, 2)))


def test_bootstrap_interval():
    assert bootstrap_interval(np.ones(50)) == (1.0, 1.0)
    correct = np.arange(1000) % 2
    low, high = bootstrap_interval(correct)
    normal = 1.96 * (0.25 / 1000) ** 0.5  # of a share of one half
    assert low == pytest.approx(0.5 - normal, abs=0.005) and high == pytest.approx(
        0.5 + normal, abs=0.005
    )
    assert (low, high) == bootstrap_interval(correct) != bootstrap_interval(correct, seed=1)
    ranks = RetrievalRanks(*(np.arange(10),) * 4)
    assert bootstrap_interval(ranks.text_to_audio, np.median)[0] < 4.5


def test_bootstrap_interval_of_a_mean_over_tasks():
    """Two tasks of 100 and 900 clips count alike: the small one decides the width."""
    small, large = np.arange(100) % 2, np.arange(900) % 2
    low, high = bootstrap_interval_of_mean([small, large])
    width = 2 * 1.96 * 0.5 * (0.25 / 100 + 0.25 / 900) ** 0.5
    assert (low + high) / 2 == pytest.approx(0.5, abs=0.01) and high - low == pytest.approx(
        width, rel=0.1
    )
    assert bootstrap_interval_of_mean([np.ones(5), np.zeros(7)]) == (0.5, 0.5)


def test_captions_of_one_clip_are_drawn_together():
    """100 clips of five captions each that are all right or all wrong are 100 observations, not
    500.
    """
    values, groups = np.repeat(np.arange(100) % 2, 5), np.repeat(np.arange(100), 5)
    together = bootstrap_interval_of_groups(values, groups)
    width, alone = (high - low for low, high in (together, bootstrap_interval(values)))
    assert width == pytest.approx(2 * 1.96 * 0.05, rel=0.1) and width / alone == pytest.approx(
        5**0.5, rel=0.15
    )
    assert together == bootstrap_interval_of_groups(values[::-1], groups[::-1])
    single = bootstrap_interval_of_groups(np.arange(1000) % 2, np.arange(1000))
    assert single == pytest.approx(bootstrap_interval(np.arange(1000) % 2), abs=0.005)


def test_ranking_report_holds_every_number_of_the_result_file():
    report = ranking_report(SIMILARITY, relevance(CAPTION_CLIPS), CAPTION_CLIPS, seed=3)
    keys = [
        f"{way}_{name}"
        for way in ("text_to_audio", "audio_to_text")
        for name in ("r1", "r5", "r10", "map10")
    ]
    for key in keys:
        low, high = report[f"{key}_interval"]
        assert 0 <= low <= report[key] <= high <= 1 and 0 <= report[f"{key}_chance"] <= 1
    assert len(report) == 3 * len(keys) + 2
    assert report == ranking_report(SIMILARITY, relevance(CAPTION_CLIPS), CAPTION_CLIPS, seed=3)


def test_zero_shot_interval_follows_the_seed():
    class Model:
        def embed_text(self, ids, lengths):
            return torch.eye(2)

    class Words:
        def encode(self, texts, max_tokens):
            return torch.zeros(len(texts), 1), torch.ones(len(texts))

    vectors = np.eye(2)[np.arange(997) % 2]
    labels = ["dog" if row % 3 else "rain" for row in range(997)]
    clips = EmbeddedClips(vectors, vectors, [], [], labels, [], [])
    score = [
        zero_shot_accuracy(clips, Model(), Words(), torch.device("cpu"), 5, "{}", seed)
        for seed in (0, 0, 1)
    ]
    assert score[0] == score[1] and score[0]["accuracy"] == score[2]["accuracy"]
    assert score[0]["accuracy_interval"] != score[2]["accuracy_interval"]
