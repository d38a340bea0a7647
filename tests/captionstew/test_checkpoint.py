"""Checkpoints: whole or not at all, safe to load, averaged as icefall does."""

import errno
import logging
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from captionstew import checkpoint as checkpoints
from captionstew.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


def content(step, value=None, period=1):
    value = float(step) if value is None else value
    model = {"w": torch.full((3,), value), "count": torch.tensor(step)}
    average = {"w": torch.full((3,), value / 2, dtype=torch.float64), "count": torch.tensor(step)}
    return {"model": model, "model_avg": average, "step": step, "average_period": period}


def save_epochs(folder, *epochs):
    for epoch in epochs:
        save_checkpoint(folder / f"epoch-{epoch}.pt", content(10 * epoch))


class FullDisk:
    """A file that has room for `room` bytes."""

    def __init__(self, path, room):
        self.file = open(path, "wb")  # noqa: SIM115
        self.room = room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def flush(self):
        self.file.flush()

    def fileno(self):
        return self.file.fileno()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


@pytest.mark.parametrize("room", [0, 500])
def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch, room):
    path = tmp_path / "epoch-1.pt"
    save_checkpoint(path, content(1))
    monkeypatch.setattr(checkpoints, "open", lambda name, _: FullDisk(name, room), raising=False)
    with pytest.raises(OSError) as error:
        save_checkpoint(path, content(2))
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(path)
    monkeypatch.undo()
    assert load_checkpoint(path)["step"] == 1
    assert [found.name for found in tmp_path.iterdir()] == ["epoch-1.pt"]


WRITER = """
import sys, torch
from pathlib import Path
from captionstew.checkpoint import save_checkpoint
path = Path(sys.argv[1])
save_checkpoint(path, {"step": 1})
print("ready", flush=True)
while True:
    save_checkpoint(path, {"step": 2, "model": {str(i): torch.zeros(100_000) for i in range(100)}})
"""


def bytes_in(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:  # not yet begun, or finished in this moment
        return 0


@pytest.mark.slow
def test_kill_during_the_write_leaves_a_whole_file(tmp_path):
    path = tmp_path / "epoch-1.pt"
    partial = tmp_path / ".epoch-1.pt.partial"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    while bytes_in(partial) < 100_000:
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert load_checkpoint(path)["step"] in (1, 2)
    assert checkpoints.newest_checkpoint(tmp_path)[0] == path


def test_newest_is_the_one_with_most_steps(tmp_path):
    assert checkpoints.newest_checkpoint(tmp_path) is None
    save_epochs(tmp_path, 1, 2)
    save_checkpoint(tmp_path / "checkpoint-15.pt", content(15))
    assert checkpoints.newest_checkpoint(tmp_path)[0].name == "epoch-2.pt"
    save_checkpoint(tmp_path / "checkpoint-100.pt", content(100))
    path, found = checkpoints.newest_checkpoint(tmp_path)
    assert path.name == "checkpoint-100.pt" and found["step"] == 100


def test_truncated_newest_falls_back_and_says_so(tmp_path, caplog):
    save_epochs(tmp_path, 1, 2, 3)
    newest = tmp_path / "epoch-3.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        path, _ = checkpoints.newest_checkpoint(tmp_path)
    assert path.name == "epoch-2.pt"
    assert "falling back to an older checkpoint" in caplog.text and "epoch-3.pt" in caplog.text
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of its 3 checkpoints can be read"):
        checkpoints.newest_checkpoint(tmp_path)


def test_what_a_killed_write_left_is_removed(tmp_path, caplog):
    save_epochs(tmp_path, 1)
    (tmp_path / ".epoch-2.pt.partial").write_bytes(b"half")
    assert checkpoints.newest_checkpoint(tmp_path)[0].name == "epoch-1.pt"
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-1.pt"]
    assert ".epoch-2.pt.partial: a write that was cut off, removed" in caplog.text


def test_clear_errors(tmp_path):
    with pytest.raises(CheckpointError, match=r"absent\.pt: no such checkpoint"):
        load_checkpoint(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(CheckpointError, match=r"text\.pt: cannot be read .* use an older one"):
        load_checkpoint(tmp_path / "text.pt")
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: not a CaptionStew checkpoint"):
        load_checkpoint(tmp_path / "other.pt")
    torch.save({"format": "captionstew", "version": 99}, tmp_path / "new.pt")
    with pytest.raises(CheckpointError, match="version 99 is newer"):
        load_checkpoint(tmp_path / "new.pt")


@pytest.mark.parametrize("entry", ["model", "model_avg"])
def test_weights_that_hold_nan_are_refused_and_the_older_checkpoint_taken(tmp_path, caplog, entry):
    save_epochs(tmp_path, 1)
    bad = content(20)
    bad[entry]["w"][1] = float("nan")
    save_checkpoint(tmp_path / "epoch-2.pt", bad)
    with pytest.raises(CheckpointError, match=r"epoch-2\.pt: its weights hold NaN.*\(w\)"):
        load_checkpoint(tmp_path / "epoch-2.pt")
    assert checkpoints.newest_checkpoint(tmp_path)[0].name == "epoch-1.pt"
    assert "falling back to an older checkpoint" in caplog.text and "NaN" in caplog.text


def test_a_flipped_bit_is_found_and_the_older_checkpoint_taken(tmp_path, caplog):
    save_epochs(tmp_path, 1, 2)
    path = tmp_path / "epoch-2.pt"
    whole = bytearray(path.read_bytes())
    whole[whole.index(np.float32(20).tobytes() * 3) + 1] ^= 4
    path.write_bytes(whole)
    assert torch.load(path, weights_only=True)["model"]["w"][0] != 20  # torch does not look
    with pytest.raises(CheckpointError, match=r"epoch-2\.pt is damaged: the checksum"):
        load_checkpoint(path)
    assert checkpoints.newest_checkpoint(tmp_path)[0].name == "epoch-1.pt"
    assert f"falling back to an older checkpoint: {path}" in caplog.text


@pytest.mark.parametrize(
    "entries, message",
    [
        ({"config": ["mini"]}, "its entry config is a list, so training did not write it"),
        ({"step": "10"}, "its entry step is a str"),
        ({"model": {"w": 3}}, "its entry model holds more than tensors"),
        ({"model": torch.ones(3)}, "its entry model is a Tensor"),
    ],
)
def test_entries_of_another_type_are_refused(tmp_path, entries, message):
    save_checkpoint(tmp_path / "a.pt", content(10) | entries)
    with pytest.raises(CheckpointError, match=rf"a\.pt: {message}"):
        load_checkpoint(tmp_path / "a.pt")


def test_files_of_ours_that_are_no_model_are_refused_by_what_they_lack(tmp_path):
    save_checkpoint(tmp_path / "a.pt", content(10))
    with pytest.raises(CheckpointError, match=r"a\.pt: holds no config, so .* it holds format"):
        load_checkpoint(tmp_path / "a.pt", checkpoints.MODEL_ENTRIES)
    torch.save({"format": "captionstew"}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"b\.pt: says no format version"):
        load_checkpoint(tmp_path / "b.pt")


def test_models_of_other_shapes_have_no_average(tmp_path):
    save_epochs(tmp_path, 1, 2)
    other = content(30)
    for entry in ("model", "model_avg"):
        other[entry]["w"] = torch.zeros(4, dtype=other[entry]["w"].dtype)
    save_checkpoint(tmp_path / "epoch-3.pt", other)
    for use_averaged_model in (True, False):
        with pytest.raises(CheckpointError, match="holds another model than"):
            checkpoints.select_model(tmp_path, 3, 0, 2, use_averaged_model)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    trap = tmp_path / "executed"
    torch.save(
        {"format": "captionstew", "version": 1, "model": Trap(str(trap))}, tmp_path / "evil.pt"
    )
    with pytest.raises(CheckpointError, match=r"evil\.pt"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not trap.exists()


def test_old_step_checkpoints_are_removed(tmp_path):
    for step in (5, 10, 100, 20):
        save_checkpoint(tmp_path / f"checkpoint-{step}.pt", content(step))
    save_epochs(tmp_path, 1)
    checkpoints.remove_old_checkpoints(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint-100.pt",
        "checkpoint-20.pt",
        "epoch-1.pt",
    }


def test_average_of_files_is_their_mean(tmp_path):
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(1000, generator=generator) for _ in range(7)]
    for number, state in enumerate(states):
        model = {"w": state, "count": torch.tensor(number)}
        save_checkpoint(tmp_path / f"epoch-{number + 1}.pt", {"model": model, "step": number})
    mean, source = checkpoints.select_model(tmp_path, 7, 0, 7, use_averaged_model=False)
    assert source.name == "epoch-7.pt"
    assert mean["w"].dtype == torch.float32 and mean["count"] == 6
    assert torch.equal(mean["w"], torch.stack(states).double().mean(0).float())
    newest, _ = checkpoints.select_model(tmp_path, 7, 0, 2, use_averaged_model=False)
    assert torch.equal(newest["w"], torch.stack(states[-2:]).double().mean(0).float())


@pytest.fixture
def fake_run(tmp_path):
    """24 steps of a random walk with --average-period 3, a checkpoint at every 6th; the states
    after each step.
    """
    torch.manual_seed(0)
    model = nn.Linear(5, 4)
    average = {name: value.double() for name, value in model.state_dict().items()}
    history = {}
    for step in range(1, 25):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        history[step] = {name: value.clone() for name, value in model.state_dict().items()}
        if step % 3 == 0:
            checkpoints.update_running_average(average, model, step, 3)
        if step % 6 == 0:
            saved = {
                "model": history[step],
                "model_avg": average,
                "step": step,
                "average_period": 3,
            }
            save_checkpoint(tmp_path / f"epoch-{step // 6}.pt", saved)
            save_checkpoint(tmp_path / f"checkpoint-{step}.pt", saved)
    return tmp_path, history


@pytest.mark.parametrize("epoch, avg", [(4, 1), (4, 2), (4, 3), (4, 4), (3, 1), (2, 2)])
def test_average_between_is_the_mean_over_every_average_period(fake_run, epoch, avg):
    """icefall's --use-averaged-model: the states at every third step after the first checkpoint, up
    to the last.
    """
    folder, history = fake_run
    steps = range(6 * (epoch - avg) + 3, 6 * epoch + 1, 3)
    ours, source = checkpoints.select_model(folder, epoch, 0, avg, use_averaged_model=True)
    assert source.name == f"epoch-{epoch}.pt"
    for name, value in ours.items():
        brute_force = torch.stack([history[step][name] for step in steps]).double().mean(0)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), brute_force, rtol=1e-6, atol=1e-7)


def test_selection_by_step(fake_run):
    folder, history = fake_run
    ours, source = checkpoints.select_model(folder, 0, 18, 1, use_averaged_model=True)
    assert source.name == "checkpoint-18.pt"
    expected = (history[15]["bias"].double() + history[18]["bias"].double()) / 2
    torch.testing.assert_close(ours["bias"].double(), expected, rtol=1e-6, atol=1e-7)
    ours, _ = checkpoints.select_model(folder, 0, 18, 1, use_averaged_model=False)
    assert torch.equal(ours["bias"], history[18]["bias"])


@pytest.mark.parametrize(
    "epoch, iteration, avg, averaged, message",
    [
        (9, 0, 1, True, "--epoch 9 --avg 1 needs 2 checkpoints, there are epoch-4.pt, epoch-3.pt"),
        (9, 0, 1, False, "--epoch 9 --avg 1 needs 1 checkpoints"),
        (4, 0, 5, True, "--epoch 4 --avg 5: --avg must be at least 1 and at most the epoch"),
        (4, 0, 5, False, "--epoch 4 --avg 5: --avg must be at least 1 and at most the epoch"),
        (0, 24, 4, True, "--iter 24 --avg 4 needs 5 checkpoints"),
        (0, 5, 1, False, "there is no checkpoint-5.pt; there are checkpoint-24.pt, "),
        (0, 20, 1, True, "there is no checkpoint-20.pt; there are checkpoint-24.pt, "),
        (4, 0, 0, True, "--avg 0: --avg must be at least 1"),
    ],
)
def test_what_is_not_there_is_never_replaced_silently(
    fake_run, epoch, iteration, avg, averaged, message
):
    with pytest.raises(CheckpointError, match=message):
        checkpoints.select_model(fake_run[0], epoch, iteration, avg, averaged)


def test_a_missing_epoch_in_between_is_an_error(fake_run):
    (fake_run[0] / "epoch-3.pt").unlink()
    with pytest.raises(CheckpointError, match="needs 3 checkpoints"):
        checkpoints.select_model(fake_run[0], 4, 0, 3, use_averaged_model=False)
    with pytest.raises(CheckpointError, match="needs 2 checkpoints"):
        checkpoints.select_model(fake_run[0], 4, 0, 1, use_averaged_model=True)


def test_a_run_shorter_than_the_average_period_has_no_average(tmp_path):
    """model_avg still holds the initial values, which nobody wants to evaluate."""
    save_checkpoint(tmp_path / "epoch-1.pt", content(50, period=200))
    with pytest.raises(CheckpointError, match="--use-averaged-model false"):
        checkpoints.select_model(tmp_path, 1, 0, 1, use_averaged_model=True)


@pytest.mark.parametrize("epoch, avg", [(10, 1), (10, 3), (7, 2), (4, 1), (9, 8)])
def test_epochs_that_end_between_two_running_averages(tmp_path, epoch, avg):
    """60 steps an epoch, --average-period 200, a parameter that equals the step: what was averaged
    was averaged.
    """
    model = nn.Linear(1, 1, bias=False)
    average = {"weight": model.weight.detach().double()}
    for step in range(1, 601):
        nn.init.constant_(model.weight, step)
        if step % 200 == 0:
            checkpoints.update_running_average(average, model, step, 200)
        if step % 60 == 0:
            saved = {
                "model": model.state_dict(),
                "model_avg": average,
                "step": step,
                "average_period": 200,
            }
            save_checkpoint(tmp_path / f"epoch-{step // 60}.pt", saved)
    ours, _ = checkpoints.select_model(tmp_path, epoch, 0, avg, use_averaged_model=True)
    taken = [step for step in (200, 400, 600) if 60 * (epoch - avg) < step <= 60 * epoch]
    assert ours["weight"].item() == pytest.approx(np.mean(taken))
    with pytest.raises(
        CheckpointError, match="no running average was taken between steps 240 and 300"
    ):
        checkpoints.select_model(tmp_path, 5, 0, 1, use_averaged_model=True)


def test_random_state_round_trip(tmp_path):
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    save_checkpoint(tmp_path / "a.pt", {"random": checkpoints.random_state()})

    def draw():
        return random.random(), np.random.normal(), np.random.rand(), torch.randn(3).tolist()

    first = draw()
    assert draw() != first
    checkpoints.set_random_state(load_checkpoint(tmp_path / "a.pt")["random"])
    assert draw() == first


def test_weights_that_do_not_fit_are_listed():
    model = nn.Linear(2, 2)
    with pytest.raises(
        CheckpointError, match=r"x\.pt: does not fit the model; missing: bias; unexpected: extra"
    ):
        checkpoints.load_weights(
            model, {"weight": torch.zeros(2, 2), "extra": torch.zeros(1)}, "x.pt"
        )
    checkpoints.load_weights(model, {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}, "x.pt")
    assert (model.weight == 1).all()
    with pytest.raises(CheckpointError, match=r"x\.pt: does not fit the model.*weight"):
        checkpoints.load_weights(
            model, {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, "x.pt"
        )
