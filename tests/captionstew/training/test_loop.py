"""The loop: what it leaves out, when it stops, what it writes, and what a resume accepts."""

import dataclasses
import itertools
import json
import logging
import os
import re
import signal

import pytest
import torch

from captionstew.checkpoint import CheckpointError, load_checkpoint, save_checkpoint, select_model
from captionstew.training import launch, progress, resume
from captionstew.training.flags import TrainingFlags, refuse_accumulation
from captionstew.training.log import read_scalars
from captionstew.training.nonfinite import TrainingStopped
from zipformer.scaled_adam import Diverged, ScaledAdam


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def checkpoint_names(exp):
    return sorted(path.name for path in exp.glob("*.pt"))


@pytest.mark.parametrize("trick, what", [("nan loss", "loss"), ("nan gradient", "gradient")])
def test_a_batch_that_is_not_finite_is_left_out_and_listed(
    toy_run, toy_data, tmp_path, trick, what
):
    """The training goes on as if the batch had not been there."""
    model = toy_run(toy_data({2: trick}), num_epochs=1)
    listed = (tmp_path / "exp" / "nonfinite-rank0.txt").read_text()
    assert listed == f"step 2 epoch 1 {what}: clip-1-2-0 clip-1-2-1 clip-1-2-2 clip-1-2-3\n"
    content = load_checkpoint(tmp_path / "exp" / "epoch-1.pt")
    assert content["step"] == 5 and content["nonfinite"] == 1
    data = toy_data()
    batches = data.train_batches
    data.train_batches = lambda *place: (
        b for b in batches(*place) if b["position"]["consumed"] != 3
    )
    assert same(model, toy_run(data, num_epochs=1, exp=tmp_path / "without"))


def test_too_many_of_them_stop_with_batch_and_parameters_saved(toy_run, toy_data, tmp_path):
    with pytest.raises(
        TrainingStopped,
        match=r"3 batches had a NaN or infinite loss; batch and .*stopped-rank0\.pt",
    ):
        toy_run(toy_data(dict.fromkeys(range(6), "nan loss")), max_nonfinite=2)
    content = load_checkpoint(tmp_path / "exp" / "stopped-rank0.pt")
    assert content["batches"][0]["cut_ids"][0] == "clip-1-2-0" and content["batches"][0][
        "features"
    ].shape == (4, 10, 8)
    assert content["model"]["weight"].shape == (3, 8) and content["step"] == 0
    assert len((tmp_path / "exp" / "nonfinite-rank0.txt").read_text().splitlines()) == 3


def test_the_count_of_left_out_batches_survives_a_resume(toy_run, toy_data, tmp_path):
    toy_run(toy_data({1: "nan loss", 2: "nan loss"}), num_epochs=1, max_nonfinite=2)
    data = toy_data({0: "nan loss"})
    data.tricks, data.train_batches = {}, lambda *place: iter([data._batch(2, 0, "nan loss")])
    with pytest.raises(TrainingStopped, match="3 batches"):
        toy_run(data, resume=True, max_nonfinite=2)


def test_unreadable_clips_are_listed_and_a_batch_without_any_is_no_step(
    toy_run, toy_data, tmp_path
):
    toy_run(toy_data({1: "empty"}), num_epochs=1)
    assert (tmp_path / "exp" / "failed-rank0.txt").read_text() == "broken\tno sound\n"
    assert load_checkpoint(tmp_path / "exp" / "epoch-1.pt")["step"] == 5
    assert sum(record.get("failed_clips", 0) for record in read_scalars(tmp_path / "exp")) == 1


def test_divergence_and_lack_of_memory_stop_with_one_line(toy_run, toy_data, tmp_path, monkeypatch):
    with pytest.raises(
        TrainingStopped, match=r"out of memory on 4 clips of 10 frames .*try --max-duration 512"
    ):
        toy_run(toy_data({3: "no memory"}))

    def diverge(self):
        raise Diverged("the median gradient norm is infinite")

    monkeypatch.setattr(ScaledAdam, "step", diverge)
    with pytest.raises(
        TrainingStopped, match=r"the median gradient norm is infinite; batch and parameters are in"
    ):
        toy_run(exp=tmp_path / "b")


def test_a_killed_loading_process_is_one_line(toy_run, toy_data):
    data = toy_data()

    def batches(*place):
        yield data._batch(1, 0, None)
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    data.train_batches = batches
    with pytest.raises(
        TrainingStopped, match=r"a loading process died \(killed by signal: Killed\);.*; go on"
    ):
        toy_run(data)


def test_bfloat16_on_a_cpu(toy_run, toy_task, tmp_path):
    task = toy_task()
    model = toy_run(task=task, use_bf16=True, num_epochs=4)
    assert task.dtypes == {torch.bfloat16} and model.weight.dtype == torch.float32
    losses = [
        record["loss"] for record in read_scalars(tmp_path / "exp") if record["kind"] == "train"
    ]
    assert losses[-1] < 0.9 * losses[0]
    assert not same(model, toy_run(num_epochs=4, exp=tmp_path / "b"))


def test_float16_skips_shrinks_and_counts_no_step(toy_run, toy_data, tmp_path):
    """icefall's behaviour; float16 works on a CPU too, though nobody would want it."""
    model = toy_run(toy_data({1: "huge gradient", 2: "huge gradient"}), use_fp16=True, num_epochs=1)
    content = load_checkpoint(tmp_path / "exp" / "epoch-1.pt")
    assert (
        content["step"] == 4
        and content["grad_scaler"]["scale"] == 0.25
        and content["nonfinite"] == 0
    )
    records = [record for record in read_scalars(tmp_path / "exp") if record["kind"] == "train"]
    assert [record["skipped_steps"] for record in records] == [0, 2, 0, 0]
    assert [record["grad_scale"] for record in records] == [1.0, 0.25, 0.25, 0.25]
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_collapsed_float16_scale_stops_the_training(toy_run, toy_data, tmp_path):
    with pytest.raises(
        TrainingStopped, match="the float16 gradient scale fell below 1e-05; batch and parameters"
    ):
        toy_run(toy_data(dict.fromkeys(range(40), "huge gradient"), epoch=40), use_fp16=True)
    assert load_checkpoint(tmp_path / "exp" / "stopped-rank0.pt")["step"] == 0


@pytest.mark.parametrize("count, steps", [(2, 3), (4, 2)])
def test_accumulated_gradients_are_those_of_one_large_batch(
    toy_run, toy_data, tmp_path, count, steps
):
    """Six batches: three steps of two, or one of four and one of the two that are left."""
    large = toy_data()
    parts = large.train_batches

    def joined(epoch, position):
        batches = list(parts(epoch, position))
        for start in range(0, 6, count):
            group = batches[start : start + count]
            features = torch.cat([batch["features"] for batch in group])
            yield group[-1] | {"features": features}

    large.train_batches = joined
    expected = toy_run(large, num_epochs=1)
    ours = toy_run(accum_grad=count, num_epochs=1, exp=tmp_path / "b")
    assert load_checkpoint(tmp_path / "b" / "epoch-1.pt")["step"] == steps
    for one, other in zip(ours.parameters(), expected.parameters()):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_left_out_batch_does_not_take_its_group_with_it(toy_run, toy_data, tmp_path):
    toy_run(toy_data({0: "nan loss"}), accum_grad=2, num_epochs=1)
    assert load_checkpoint(tmp_path / "exp" / "epoch-1.pt")["step"] == 3


def test_contrastive_recipes_refuse_accumulation():
    refuse_accumulation(TrainingFlags())
    with pytest.raises(
        ValueError, match="--accum-grad does not go with a contrastive loss: each clip's negatives"
    ):
        refuse_accumulation(dataclasses.replace(TrainingFlags(), accum_grad=2))


def test_only_the_last_checkpoints_are_kept(toy_run, tmp_path):
    toy_run(save_every_n=2, keep_last_k=2, save_every_epochs=2)
    assert checkpoint_names(tmp_path / "exp") == [
        "checkpoint-10.pt",
        "checkpoint-12.pt",
        "epoch-2.pt",
    ]


def test_start_epoch_and_start_batch_repeat_the_rest(toy_run, tmp_path):
    exp = tmp_path / "exp"
    expected = toy_run(num_epochs=3, save_every_n=4)
    assert same(expected, toy_run(num_epochs=3, start_epoch=3))
    assert same(expected, toy_run(num_epochs=3, start_batch=8))
    with pytest.raises(CheckpointError, match=r"epoch-6\.pt: no such checkpoint"):
        toy_run(start_epoch=7)
    assert [r["step"] for r in read_scalars(exp) if r["kind"] == "train"] == list(range(1, 19))


def test_checkpoints_of_an_earlier_run_stay_out_of_the_way(toy_run, tmp_path):
    exp = tmp_path / "exp"
    toy_run(num_epochs=3, save_every_n=4)
    with pytest.raises(
        CheckpointError,
        match=r"holds epoch-3\.pt of an earlier run\. --resume true goes on from it",
    ):
        toy_run(num_epochs=1)
    toy_run(start_batch=8, base_lr=0.01, max_steps=10, save_every_n=2, keep_last_k=2)
    assert checkpoint_names(exp) == ["checkpoint-10.pt", "checkpoint-8.pt", "epoch-1.pt"]
    assert checkpoint_names(exp / "set-aside") == [
        "checkpoint-12.pt",
        "checkpoint-16.pt",
        "epoch-2.pt",
        "epoch-3.pt",
    ]
    toy_run(resume=True, base_lr=0.01, max_steps=11)
    assert load_checkpoint(exp / "checkpoint-11.pt")["step"] == 11


def test_a_request_to_stop_changes_no_average(toy_run, toy_task, tmp_path):
    """What it leaves takes no place among the checkpoints of regular steps."""

    class Asked(toy_task):
        def losses(self, model, batch, device):
            if len(self.seen) == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().losses(model, batch, device)

    settings = {"save_every_n": 2, "keep_last_k": 3}
    toy_run(exp=tmp_path / "whole", **settings)
    toy_run(task=Asked(), **settings)
    assert load_checkpoint(tmp_path / "exp" / "interrupted.pt")["step"] == 5
    toy_run(resume=True, **settings)
    whole, parts = (select_model(tmp_path / exp, 0, 12, 2, True)[0] for exp in ("whole", "exp"))
    assert all(torch.equal(whole[name], value) for name, value in parts.items())
    assert checkpoint_names(tmp_path / "exp") == [
        *checkpoint_names(tmp_path / "whole"),
        "interrupted.pt",
    ]


def test_processes_that_read_different_checkpoints_do_not_start(toy_run, monkeypatch):
    monkeypatch.setattr(resume, "gather_objects", lambda step: [step, 100])
    with pytest.raises(
        CheckpointError, match=r"the processes start from different steps \(0, 100\)"
    ):
        toy_run()


def test_resume_says_what_it_restored(toy_run, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    toy_run(max_steps=8)
    toy_run(max_steps=9, resume=True, base_lr=0.01)
    assert (
        f"restored {tmp_path / 'exp' / 'checkpoint-8.pt'}: step 8, epoch 2 after batch 2"
        in caplog.text
    )
    assert "base_lr changes from 0.045 to 0.01" in caplog.text


@pytest.mark.parametrize("steps", [3, 6])
def test_an_exact_resume_refuses_what_would_change_it(toy_run, toy_data, toy_task, steps):
    """In the middle of an epoch and at its end."""
    toy_run(max_steps=steps)
    with pytest.raises(
        CheckpointError,
        match="continued exactly, these have changed: accum_grad 1 -> 2; max_caption",
    ):
        toy_run(resume=True, accum_grad=2, max_caption_tokens=12)
    with pytest.raises(
        CheckpointError,
        match=r"these have changed: manifest None -> 'other'\. Restore the old values",
    ):
        toy_run(toy_data(manifest="other"), resume=True)
    toy_run(
        toy_data(manifest="other"),
        resume=True,
        resume_mode="reseed",
        accum_grad=2,
        max_steps=steps + 1,
    )


def test_reseed_says_that_the_epoch_begins_again_and_does(toy_run, toy_task, caplog):
    toy_run(max_steps=3)
    task = toy_task()
    toy_run(task=task, resume=True, resume_mode="reseed", num_epochs=1)
    assert "--resume-mode reseed: epoch 1 starts again, after 3 of its batches" in caplog.text
    assert [ids[0] for ids in task.seen] == [f"clip-1-{number}-0" for number in range(6)]


def test_reseed_at_the_end_of_an_epoch_goes_on_with_the_next(toy_run, toy_task, caplog):
    toy_run(num_epochs=1)
    task = toy_task()
    toy_run(task=task, resume=True, resume_mode="reseed", num_epochs=2)
    assert "starts again" not in caplog.text
    assert [ids[0] for ids in task.seen] == [f"clip-2-{number}-0" for number in range(6)]


def test_no_resume_continues_another_model(toy_run, toy_task):
    task = toy_task()
    task.config |= {"tokenizer": {"model": torch.arange(300)}, "coverage": {"any": 2}}
    toy_run(task=task, max_steps=3)
    other = toy_task()
    other.config |= {"tokenizer": {"model": torch.arange(1, 301)}, "coverage": {"any": 3}}
    for mode in ("exact", "reseed"):
        with pytest.raises(
            CheckpointError,
            match=r"another model than the flags and the data describe: the content of tokenizer",
        ):
            toy_run(task=other, resume=True, resume_mode=mode)
    other.config["tokenizer"] = {"model": torch.arange(300)}
    toy_run(task=other, resume=True, max_steps=4)


def test_another_number_of_processes_needs_reseed(toy_run, tmp_path):
    toy_run(max_steps=3)
    path = tmp_path / "exp" / "checkpoint-3.pt"
    content = load_checkpoint(path)
    save_checkpoint(path, content | {"ranks": content["ranks"] * 2})
    with pytest.raises(
        CheckpointError,
        match="written by 2 processes, this run has 1: use the same number, or --res",
    ):
        toy_run(resume=True)
    toy_run(resume=True, resume_mode="reseed", max_steps=4)


def test_records_and_the_progress_line(toy_run, toy_task, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    task = toy_task()
    task.samples = lambda: [("clip-0-1-0", "a dog", "ein Hund ü")]
    toy_run(task=task, num_epochs=1, log_interval=3, tensorboard=True)
    train, valid = [
        [r for r in read_scalars(tmp_path / "exp") if r["kind"] == kind]
        for kind in ("train", "valid")
    ]
    names = {
        "kind",
        "step",
        "epoch",
        "time",
        "loss",
        "gauge",
        "learning_rate",
        "gradient_norm",
        "clipped_share",
    }
    names |= {
        "batch_seconds",
        "padding_share",
        "audio_seconds_per_second",
        "data_wait_share",
        "failed_clips",
    }
    assert [set(record) for record in train] == [names] * 2 and [
        record["step"] for record in train
    ] == [3, 6]
    assert (
        train[0]["batch_seconds"] == 4.0
        and train[0]["padding_share"] == 0.0
        and train[0]["gradient_norm"] > 0
    )
    assert valid == [
        {"kind": "valid", "step": 6, "epoch": 1, "time": valid[0]["time"], "metric": 1.0}
    ]
    (line,) = [line for line in caplog.messages if line.startswith("epoch 1, step 3, loss ")]
    assert re.search(r", \d+ s/s, \d+ s left$", line)
    sample = json.loads((tmp_path / "exp" / "samples.jsonl").read_text())
    assert sample == {
        "step": 6,
        "cut_id": "clip-0-1-0",
        "caption": "a dog",
        "hypothesis": "ein Hund ü",
    }
    assert list((tmp_path / "exp" / "tensorboard").iterdir())


@pytest.mark.parametrize(
    "seconds, shown",
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (5400, "1 h 30 min"), (200_000, "2 d 7 h")],
)
def test_time_left_is_readable(seconds, shown):
    assert progress.as_time(seconds) == shown


def test_launch_of_one_process_calls_the_function(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    seen = []
    launch.launch(
        lambda rank, *args: seen.append((rank.rank, rank.world_size, args)), 1, 0, "cpu", "a"
    )
    assert seen == [(0, 1, ("a",))]


def rates(exp):
    rows = [json.loads(line) for line in (exp / "scalars.jsonl").read_text().splitlines()]
    return {row["step"]: row["learning_rate"] for row in rows if row["kind"] == "train"}


def test_rates_depend_on_steps_and_not_on_the_corpus_size(toy_run, toy_data, tmp_path):
    """Figure 2 compares corpora of different size: at every step they have one rate."""
    flags = {"max_steps": 24, "num_epochs": 99, "lr_epochs": 1.0, "warm_step": 4, "lr_batches": 10}
    found = {}
    for epoch in (3, 12):
        for steps in (0, 5):
            exp = tmp_path / f"{epoch}-{steps}"
            toy_run(toy_data(epoch=epoch), exp=exp, lr_steps_per_epoch=steps, **flags)
            found[epoch, steps] = rates(exp)
    assert found[3, 5] == found[12, 5] and len(found[3, 5]) == 24
    assert found[3, 0][24] < found[12, 0][24]
    assert all(
        earlier > later for earlier, later in itertools.pairwise(list(found[3, 5].values())[4:])
    )


def test_rates_by_steps_go_on_where_they_were(toy_run, toy_data, tmp_path):
    flags = {"num_epochs": 99, "lr_steps_per_epoch": 5, "lr_epochs": 1.0, "save_every_n": 4}
    toy_run(toy_data(), exp=tmp_path / "whole", max_steps=12, **flags)
    toy_run(toy_data(), exp=tmp_path / "two", max_steps=8, **flags)
    toy_run(toy_data(), exp=tmp_path / "two", max_steps=12, resume=True, **flags)
    assert rates(tmp_path / "two") == rates(tmp_path / "whole")
