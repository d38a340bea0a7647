"""Which weights an evaluation takes."""

import dataclasses
import json

import pytest
import torch

from captionstew.checkpoint import CheckpointError, save_checkpoint
from captionstew.evaluation.lit import best_validated
from captionstew.evaluation.weights import SelectionFlags, select_weights


@pytest.fixture
def flags(tmp_path):
    """A run of two epochs whose weight is 1 and 2, its running average 10 and 20."""
    for epoch in (1, 2):
        content = {
            "model": {"w": torch.tensor(float(epoch))},
            "model_avg": {"w": torch.tensor(10.0 * epoch, dtype=torch.float64)},
            "config": {"task": "captioning", "preset": "mini"},
            "step": 5 * epoch,
            "average_period": 1,
        }
        save_checkpoint(tmp_path / f"epoch-{epoch}.pt", content)
    return SelectionFlags(exp_dir=tmp_path, epoch=2)


def test_one_file_gives_its_own_weights(flags, tmp_path):
    selected = select_weights(
        dataclasses.replace(flags, checkpoint=tmp_path / "epoch-1.pt"), "captioning"
    )
    assert (
        selected.weights["w"] == 1.0
        and selected.choice == "file"
        and selected.source == tmp_path / "epoch-1.pt"
    )
    description = selected.describe_encoder()
    assert description["preset"] == "mini" and description["pretraining"] == "captioning"
    assert description["path"] == str(tmp_path / "epoch-1.pt") and len(description["sha256"]) == 64


@pytest.mark.parametrize(
    "avg, averaged, weight", [(1, False, 2.0), (2, False, 1.5), (2, True, 20.0), (1, True, 30.0)]
)
def test_epochs_are_chosen_as_in_icefall(flags, tmp_path, avg, averaged, weight):
    """The mean of the weights, or the average over the last interval: (10 steps x 20 - 5 steps x
    10) / 5 steps.
    """
    selected = select_weights(dataclasses.replace(flags, avg=avg, use_averaged_model=averaged))
    assert (
        selected.weights["w"].item() == pytest.approx(weight)
        and selected.source == tmp_path / "epoch-2.pt"
    )
    assert selected.choice == f"epoch 2 iter 0 avg {avg} use-averaged-model {averaged}"


def test_weights_of_another_task_are_refused(flags):
    with pytest.raises(
        CheckpointError,
        match="epoch-2.pt: trained for captioning, but this program needs contrastive",
    ):
        select_weights(flags, "contrastive")


@pytest.mark.parametrize(
    "metrics, best",
    [
        ([(1, 0.2), (2, 0.3)], 2),
        ([(1, 0.3), (2, 0.3)], 1),  # the first of equals
        (
            [(1, 0.9), (1, 0.1), (2, 0.3)],
            2,
        ),  # the last of an epoch, which is nearest to its checkpoint
        ([(1, 0.2), (2, 0.1), (3, 0.9)], 1),  # epoch 3 has no checkpoint
    ],
)
def test_validation_chooses_the_epoch(flags, tmp_path, metrics, best):
    records = [
        {"kind": "valid", "step": step, "epoch": epoch, "r10": value}
        for step, (epoch, value) in enumerate(metrics)
    ]
    (tmp_path / "scalars.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records)
    )
    assert best_validated(tmp_path, "r10") == (best, 0)
    with pytest.raises(ValueError, match="rouge_l"):
        best_validated(tmp_path, "rouge_l")


def test_validation_chooses_the_step_of_a_run_that_counts_steps(tmp_path):
    values = {100: 0.1, 150: 0.9, 200: 0.4, 300: 0.4}  # 150 was validated, not saved
    rows = [{"kind": "valid", "step": step, "epoch": 1, "r10": x} for step, x in values.items()]
    (tmp_path / "scalars.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in (100, 200, 300):
        (tmp_path / f"checkpoint-{step}.pt").touch()
    assert best_validated(tmp_path, "r10") == (0, 200)
