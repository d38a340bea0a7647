"""Average precision of many heads at once is scikit-learn's; bootstrap weights are repetitions."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from captionstew.evaluation.metrics.classification import mean_average_precision
from captionstew.evaluation.probing import head_metrics as probe_metrics
from captionstew.evaluation.probing.head_metrics import (
    AccuracyPerHead,
    AveragePrecisionPerHead,
    NoMetric,
    RankedScores,
    average_precision,
    map_interval,
)


def drawn(seed, heads=3, clips=40, classes=5, levels=None):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(heads, clips, classes))
    if levels:
        scores = np.round(scores * levels) / levels
    targets = generator.random((clips, classes)) < 0.3
    targets[:, 0] = False  # a class without positives
    targets[:, 1] = True  # and one without negatives
    return scores, targets.astype(np.float32)


@pytest.mark.parametrize("levels", [None, 2, 0.01])
def test_equals_scikit_learn_with_and_without_ties(levels):
    scores, targets = drawn(1, levels=levels)
    ours = average_precision(
        torch.from_numpy(scores).transpose(1, 2).contiguous(),
        torch.from_numpy(targets).T.contiguous(),
    )
    assert ours[:, 0].isnan().all()
    for head in range(3):
        for c in range(1, 5):
            expected = average_precision_score(targets[:, c], scores[head, :, c])
            assert ours[head, c].item() == pytest.approx(expected, abs=1e-12)


def test_the_golden_cases(golden_dir):
    import json

    arrays = np.load(golden_dir("metric_golden") / "tagging.npz")
    text = (golden_dir("metric_golden") / "tagging.json").read_text()
    cases = [case for case in json.loads(text)["cases"] if f"{case['name']}__targets" in arrays]
    assert len(cases) > 5
    for case in cases:
        scores, targets = (
            arrays[f"{case['name']}__{what}"].astype(np.float64) for what in ("scores", "targets")
        )
        ours = average_precision(
            torch.from_numpy(scores.T.copy()), torch.from_numpy(targets.T.copy())
        )
        for value, expected in zip(ours.tolist(), case["average_precision"]):
            if expected is not None and targets.any():
                assert value == pytest.approx(expected, abs=1e-9) or (
                    np.isnan(value) and expected == 0.0
                )


def test_batches_and_chunks_of_heads_do_not_matter(monkeypatch):
    scores, targets = drawn(2)
    expected = [mean_average_precision(one, targets)[0] for one in scores]
    for most in (1, 1 << 25):
        monkeypatch.setattr(probe_metrics, "MAX_SORTED", most)
        metric = AveragePrecisionPerHead()
        for rows in np.array_split(np.arange(40), 3):
            metric.update(torch.from_numpy(scores[:, rows]), torch.from_numpy(targets[rows]))
        np.testing.assert_allclose(metric.values(), expected, atol=1e-12)


def test_nothing_to_choose_by_is_said():
    metric = AveragePrecisionPerHead()
    metric.update(torch.zeros(2, 3, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="no validation clip has a label"):
        metric.values()


def test_accuracy_and_no_metric():
    metric, none = AccuracyPerHead(), NoMetric()
    for _ in range(2):
        scores = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
        metric.update(scores, torch.tensor([0, -1]))
        none.update(scores, torch.tensor([0, 1]))
    assert metric.values().tolist() == [0.5, 0.0] and none.values().tolist() == [0.0, 0.0]


def test_weights_are_repetitions():
    scores, targets = drawn(3, heads=1, levels=2)
    weights = np.random.default_rng(0).integers(0, 4, 40)
    rows = np.repeat(np.arange(40), weights)
    ranked = RankedScores(torch.from_numpy(scores[0].T.copy()), torch.from_numpy(targets.T.copy()))
    ours = ranked.average_precision(torch.from_numpy(weights))
    for c in range(1, 5):
        expected = average_precision_score(targets[rows, c], scores[0, rows, c])
        assert ours[c].item() == pytest.approx(expected, abs=1e-12)


def test_the_interval_holds_the_value_and_shrinks_with_clips():
    widths = []
    for clips in (30, 600):
        scores, targets = drawn(4, heads=2, clips=clips)
        scores = scores + 2 * targets
        low, high = map_interval(scores, targets)
        value = np.mean([mean_average_precision(one, targets)[0] for one in scores])
        assert low <= value <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
