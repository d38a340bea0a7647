"""A training that is killed anywhere and resumed leaves the files of one that never was."""

import json
import random

import numpy as np
import pytest
import torch

from captionstew.checkpoint import load_checkpoint, save_checkpoint, seed_generators
from captionstew.models.losses import Losses
from captionstew.training import loop

TIMES = ("time", "audio_seconds_per_second", "data_wait_share")
# no interval divides another: checkpoints lie between progress lines, validations at checkpoints
INTERVALS = {"log_interval": 5, "save_every_n": 4, "valid_interval": 4, "average_period": 3}
STEPS = 18


class Killed(BaseException):
    """Nothing catches it."""


@pytest.fixture
def run(toy_run, toy_data, toy_task, monkeypatch):
    """run(exp, dies=("losses" | "validate" | "save", nth call), ...) -> whether it came to its
    end.
    """

    class Task(toy_task):
        def losses(self, *args):
            count("losses")
            losses = super().losses(*args)
            factor = 1 + random.random() + np.random.random() + float(torch.rand(()))
            return Losses(losses.total * factor, losses.terms, losses.gauges)

        def validate(self, *args):
            count("validate")
            return super().validate(*args)

        def samples(self):
            return [("clip", "a dog", "a cat")]

    def count(name):
        calls[name] = calls.get(name, 0) + 1
        if (name, calls[name]) == dies_at[0]:
            raise Killed

    def save(*args):
        count("save")
        original(*args)

    original = loop.save
    monkeypatch.setattr(loop, "save", save)
    calls, dies_at = {}, [None]

    def run(exp, dies=None, **flags):
        calls.clear()
        dies_at[0] = dies
        seed_generators(3)
        data = toy_data({2: "nan loss", 4: "empty"}, epoch=8)
        try:
            toy_run(data, Task(), exp, **({"num_epochs": 3} | INTERVALS | flags))
        except Killed:
            return False
        return True

    return run


def lines(exp, name="scalars.jsonl"):
    """What a log says, without what depends on the clock."""
    records = [json.loads(line) for line in (exp / name).read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


MOMENTS = [("losses", n) for n in (1, 3, 6, 7, 9, 11, 14, 20)]
MOMENTS += [("validate", n) for n in (1, 2, 4)] + [("save", n) for n in (1, 2, 3, 6, 7)]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment[0]}{moment[1]}")
def test_logs_and_parameters_of_the_unbroken_run(run, tmp_path, moment):
    whole, exp = tmp_path / "whole", tmp_path / "exp"
    assert run(whole) and not run(exp, dies=moment, resume=True) and run(exp, resume=True)
    assert lines(exp) == lines(whole)
    assert lines(exp, "samples.jsonl") == lines(whole, "samples.jsonl")
    for name in ("failed-rank0.txt", "nonfinite-rank0.txt"):
        assert (exp / name).read_text() == (whole / name).read_text()
    assert sorted(p.name for p in exp.glob("*.pt")) == sorted(p.name for p in whole.glob("*.pt"))
    for path in whole.glob("*.pt"):
        ours, theirs = load_checkpoint(exp / path.name), load_checkpoint(path)
        for part in ("model", "model_avg"):
            assert all(torch.equal(ours[part][name], theirs[part][name]) for name in theirs[part])


def test_a_validation_that_was_due_is_caught_up_on(run, tmp_path):
    """The checkpoint of step 4 is there, its validation is not."""
    assert not run(tmp_path / "exp", dies=("validate", 1))
    assert not [line for line in lines(tmp_path / "exp") if line["kind"] == "valid"]
    run(tmp_path / "exp", resume=True, max_steps=5)
    assert [line["step"] for line in lines(tmp_path / "exp") if line["kind"] == "valid"] == [4]


def test_going_back_by_hand_sets_the_later_records_aside(run, tmp_path):
    exp = tmp_path / "exp"
    run(exp)
    before = lines(exp)
    run(exp, start_batch=8, max_steps=10)
    assert [line["step"] for line in lines(exp) if line["kind"] == "train"] == [5, 10]
    aside = lines(exp / "set-aside")
    assert lines(exp)[: len(before) - len(aside)] + aside == before


def test_a_checkpoint_of_before_is_continued_without_its_window(run, tmp_path):
    """Written by code that stored neither the window nor the sizes of logs."""
    exp = tmp_path / "exp"
    run(exp, max_steps=8)
    content = load_checkpoint(exp / "checkpoint-8.pt")
    del content["logs"], content["validated"], content["ranks"][0]["window"]
    save_checkpoint(exp / "checkpoint-8.pt", content)
    before = lines(exp)
    assert run(exp, resume=True, max_steps=10)
    assert lines(exp)[: len(before)] == before and lines(exp)[-1]["step"] == 10


def test_every_generator_is_seeded():
    def draw():
        return random.random(), np.random.random(), torch.rand(2).tolist()

    seed_generators(1)
    first = draw()
    assert draw() != first
    seed_generators(1)
    assert draw() == first
    seed_generators(-1)
