"""The trial of the heaviest batches: what it reports, that it changes nothing, what it advises."""

import dataclasses
import logging

import pytest
import torch

from captionstew.checkpoint import random_state
from captionstew.distributed import Rank
from captionstew.models.contrastive import contrastive_losses
from captionstew.training.flags import TrainingFlags
from captionstew.training.nonfinite import TrainingStopped
from captionstew.training.preflight import report_data, run_preflight
from captionstew.training.state import TrainerState
from zipformer import training_state
from zipformer.schedules import get_batch_count

CPU = Rank(0, 0, 1, torch.device("cpu"))


@dataclasses.dataclass(frozen=True)
class Flags(TrainingFlags):
    max_duration: float = 60.0
    max_caption_tokens: int = 128


class Limited:
    """A task that runs out of memory on more than `limit` clips, asking `task` otherwise."""

    def __init__(self, task, limit):
        self.task, self.limit, self.tried = task, limit, []
        self.config = task.config

    def losses(self, model, batch, device):
        self.tried.append(len(batch["cut_ids"]))
        if self.tried[-1] > self.limit:
            raise torch.OutOfMemoryError("tried to allocate 9 TB")
        return self.task.losses(model, batch, device)


class Contrastive:
    """The contrastive objective, and the captions it was given."""

    config = {}

    def __init__(self, tokenizer):
        self.tokenizer, self.captions = tokenizer, []

    def losses(self, model, batch, device):
        self.captions.append(batch["captions"])
        return contrastive_losses(model, batch, self.tokenizer, 32, True, device)


def test_nothing_is_different_afterwards(tiny_model, tokenizer, toy_data, make_batch, caplog):
    caplog.set_level(logging.INFO)
    data, task = toy_data(), Contrastive(tokenizer)
    data.batch_of = lambda positions: make_batch(0, len(positions))
    trainer = TrainerState(tiny_model, task, data, Flags(), CPU)
    trainer.step = 25
    trainer.update_schedules()
    assert get_batch_count(tiny_model) == 20 * 60 / 600
    parameters = [p.detach().clone() for p in tiny_model.parameters()]
    encoder, generators = training_state(tiny_model), str(random_state())
    drawn = torch.get_rng_state()
    run_preflight(trainer)
    assert training_state(tiny_model) == encoder and str(random_state()) == generators
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(a, b) for a, b in zip(parameters, tiny_model.parameters()))
    assert all(p.grad is None for p in tiny_model.parameters())
    lines = [line for line in caplog.messages if line.startswith("preflight: ")]
    assert len(lines) == len(task.captions) == 2 and "peak memory" in lines[0]
    assert lines[0].startswith("preflight: longest clips, 4 clips of 60 frames, captions of ")


def test_long_captions_are_counted(tokenizer, toy_data, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    captions = ["a dog barks", "rain " * 200]
    monkeypatch.setattr("captionstew.training.preflight._sample_captions", lambda cuts: captions)
    model = torch.nn.Linear(8, 3)
    report_data(TrainerState(model, Contrastive(tokenizer), toy_data(), Flags(), CPU))
    assert caplog.messages[0].startswith("training on 10 clips")
    assert "1 of 2 sampled ones are longer than --max-caption-tokens 128" in caplog.messages[1]


@pytest.mark.parametrize("limit, advised", [(3, 42), (2, 28), (1, 14)])
def test_out_of_memory_names_a_max_duration_that_fits(toy_task, toy_data, limit, advised):
    """Batches of four clips: of --max-duration 60, what `limit` clips take, less 5 %."""
    task = Limited(toy_task(), limit)
    trainer = TrainerState(torch.nn.Linear(8, 3), task, toy_data(), Flags(), CPU)
    with pytest.raises(
        TrainingStopped,
        match=rf"--max-duration 60 needs more memory .* try --max-duration {advised}$",
    ):
        run_preflight(trainer)


def test_out_of_memory_for_a_single_clip(toy_task, toy_data):
    task = Limited(toy_task(), 0)
    trainer = TrainerState(torch.nn.Linear(8, 3), task, toy_data(), Flags(), CPU)
    with pytest.raises(
        TrainingStopped, match="not even for one clip; take a smaller --encoder-preset"
    ):
        run_preflight(trainer)
