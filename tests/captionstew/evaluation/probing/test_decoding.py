from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from captionstew.evaluation.probing.decoding import Decoded, joined
from captionstew.evaluation.probing.scoring import ProbeScore, accuracy_metrics
from captionstew.evaluation.probing.tasks import ProbeTask


def decoded(correct, chance, encoder="one"):
    score = ProbeScore(accuracy_metrics(correct) | {"chance": chance}, {}, correct)
    result = {
        "encoder": {"sha256": encoder},
        "variant": "",
        "trained_parameters": 10,
        "checkpoint": encoder,
        "metrics": score.metrics,
        "settings": {"pooling": "mean", "num_broken": 0},
        "num_clips": correct.shape[1],
        "trained_clips": {
            "trained": 2,
            "by_key": 1,
            "by_audio": 2,
            "clips": correct.shape[1],
            "complete": True,
        },
    }
    return Decoded(ProbeTask("birds", "birds"), score, result, Path("cuts_test.jsonl"), [])


def test_joined_test_clips_count_alike():
    first = decoded(np.array([[True, True, False, False], [True, True, True, False]]), 0.25)
    second = decoded(np.array([[True] * 2, [False] * 2]), 0.5)
    both = joined(first, second)
    assert both.result["metrics"]["accuracy"] == pytest.approx((4 / 6 + 3 / 6) / 2)
    assert both.result["metrics"]["chance"] == pytest.approx((4 * 0.25 + 2 * 0.5) / 6)
    assert both.result["num_clips"] == 6 and both.score.correct.shape == (2, 6)
    assert (
        both.result["trained_clips"]["trained"] == 4 and both.result["trained_clips"]["clips"] == 6
    )
    assert both.result["settings"]["joined"] == ["cuts_test.jsonl", "cuts_test.jsonl"]


@pytest.mark.parametrize("other", ["encoder", "task", "seeds"])
def test_only_the_same_probes_are_joined(other):
    first = second = decoded(np.ones((2, 4), dtype=bool), 0.25)
    if other == "encoder":
        second = decoded(np.ones((2, 4), dtype=bool), 0.25, encoder="two")
    elif other == "task":
        second = replace(first, task=ProbeTask("dogs", "dogs"))
    else:
        second = decoded(np.ones((3, 4), dtype=bool), 0.25)
    with pytest.raises(ValueError, match="cannot be joined"):
        joined(first, second)
