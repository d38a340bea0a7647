"""Scores of an encoder that was trained on a task."""

import pytest
import torch

from captionstew.data.features.fbank import FbankConfig
from captionstew.evaluation.probing.supervised import frames_heard, scored_batches
from captionstew.evaluation.probing.tasks import ProbeTask


@pytest.mark.parametrize(
    "max_seconds, heard", [(0.0, (300, 40)), (1.0, (100, 40)), (9.0, (300, 40))]
)
def test_only_the_tasks_window_is_heard(max_seconds, heard):
    """As with a frozen encoder."""

    def model(features, lengths):
        mask = torch.arange(features.shape[1]) < lengths[:, None]
        return (features[..., 0] * mask).sum(1, keepdim=True)

    task = ProbeTask("any", max_seconds=max_seconds)
    batch = {
        "cut_ids": ["a", "b"],
        "features": torch.ones(2, 300, 80),
        "feature_lengths": torch.tensor([300, 40]),
    }
    frames = frames_heard(task, FbankConfig())
    ((_, logits),) = scored_batches(model, [batch], torch.device("cpu"), frames)
    assert tuple(logits[:, 0].tolist()) == heard
