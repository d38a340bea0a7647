"""A contrastive training that is killed and resumed gives the losses of one that never was, to the last digit.

Everything random is on: dropout, layer skipping, Balancer and Whiten, SpecAugment, gain, crop, delay, shuffling, one
caption per epoch; two loading processes. The schedules' batch count moves by 10 at every step.
"""

import os
import signal
import socket
import subprocess
import time

import pytest

from captionstew.training.checkpoint import load_checkpoint, newest_checkpoint

pytestmark = pytest.mark.slow

SAVE_EVERY = 8
MAX_STEPS = 40
FLAGS = [
    "--num-workers", 2, "--log-interval", 1, "--save-every-n", SAVE_EVERY, "--average-period", 4,
    "--max-steps", MAX_STEPS, "--num-epochs", 100, "--augment-gain-db", 6, "--augment-min-crop", 0.7,
    "--augment-max-delay", 0.2, "--tensorboard", "false",
]  # fmt: skip
INITIAL_WHITEN_PROB = 0.25


@pytest.fixture(scope="module")
def start(mini_data, train_command, tmp_path_factory):
    """start(exp, flag, value, ...) -> the running training, in a process group of its own."""

    def start(exp, *flags):
        command = train_command(mini_data, exp, *FLAGS, *flags)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        exp.parent.mkdir(parents=True, exist_ok=True)
        with open(exp.with_suffix(".output"), "a") as output:
            return subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    return start


@pytest.fixture(scope="module")
def finish(start):
    """finish(exp, flag, value, ...): a training up to its end."""

    def finish(exp, *flags):
        assert start(exp, *flags).wait() == 0, exp.with_suffix(".output").read_text()

    return finish


@pytest.fixture(scope="module")
def never_killed(finish, scalars, tmp_path_factory):
    """Step -> loss of a training without interruption, and its last checkpoint."""
    exp = tmp_path_factory.mktemp("reference") / "exp"
    finish(exp)
    return losses(scalars(exp)), newest_checkpoint(exp)[1]


def losses(records):
    """Step -> everything that depends on the parameters; a later record of a step replaces an earlier one."""
    names = ("loss", "audio_to_text", "text_to_audio", "logit_scale", "learning_rate", "gradient_norm")
    return {record["step"]: tuple(record[name] for name in names) for record in records}


def free_port():
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def kill_between_checkpoints(process, exp, scalars, first_step):
    """SIGKILL to the training and its loaders some steps after a checkpoint; returns the last step logged."""
    while process.poll() is None:
        records = scalars(exp)
        if records and records[-1]["step"] >= first_step:
            os.killpg(process.pid, signal.SIGSTOP)
            time.sleep(0.05)
            last = scalars(exp)[-1]["step"]
            if last % SAVE_EVERY not in (0, SAVE_EVERY - 1):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return last
            os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.005)
    raise AssertionError("the training ended by itself:\n" + exp.with_suffix(".output").read_text())


def assert_same_run(exp, scalars, expected, steps=MAX_STEPS):
    """Every loss ever logged, before and after the interruption, and the final parameters."""
    expected_losses, expected_checkpoint = expected
    ours = losses(scalars(exp))
    assert sorted(ours) == list(range(1, steps + 1))
    for step in ours:
        assert ours[step] == expected_losses[step], f"step {step}"
    for record in scalars(exp):  # those before a resume, which assert nothing else looks at
        assert record["loss"] == expected_losses[record["step"]][0], record["step"]
    found = newest_checkpoint(exp)[1]
    assert found["step"] == steps
    for part in ("model", "model_avg"):
        for name, value in expected_checkpoint[part].items():
            assert (found[part][name] == value).all(), f"{part} {name}"


def test_sigkill_between_checkpoints(start, finish, scalars, never_killed, tmp_path):
    exp = tmp_path / "exp"
    last = kill_between_checkpoints(start(exp), exp, scalars, first_step=2 * SAVE_EVERY)
    path, content = newest_checkpoint(exp)
    assert path.name == f"checkpoint-{content['step']}.pt" and content["step"] < last
    probabilities = content["ranks"][0]["encoder"]["whiten_prob"].values()
    assert any(probability != INITIAL_WHITEN_PROB for probability in probabilities)
    finish(exp, "--resume", "true")
    assert f"restored {path}" in exp.with_suffix(".output").read_text()
    assert_same_run(exp, scalars, never_killed)


def test_sigkill_in_the_first_epoch_and_again_later(start, finish, scalars, never_killed, tmp_path):
    exp = tmp_path / "exp"
    kill_between_checkpoints(start(exp), exp, scalars, first_step=SAVE_EVERY)
    kill_between_checkpoints(start(exp, "--resume", "true"), exp, scalars, first_step=3 * SAVE_EVERY)
    finish(exp, "--resume", "true")
    assert_same_run(exp, scalars, never_killed)


def test_sigterm_saves_and_ends_well(start, finish, scalars, never_killed, tmp_path):
    exp = tmp_path / "exp"
    process = start(exp)
    while process.poll() is None and len(scalars(exp)) < 10:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == 0
    output = exp.with_suffix(".output").read_text()
    assert "stopped on request at step" in output
    content = newest_checkpoint(exp)[1]
    assert content["step"] == scalars(exp)[-1]["step"] < MAX_STEPS
    finish(exp, "--resume", "true")
    assert_same_run(exp, scalars, never_killed)


def test_two_processes_train_and_resume(start, finish, scalars, tmp_path):
    """--world-size 2 on a CPU: killed and resumed as it would have gone on; both processes have their own state."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    steps = 20
    flags = ("--world-size", 2, "--num-workers", 1, "--max-steps", steps)
    finish(whole, *flags, "--master-port", free_port())
    process = start(killed, *flags, "--master-port", free_port())
    kill_between_checkpoints(process, killed, scalars, first_step=SAVE_EVERY + 2)
    finish(killed, *flags, "--master-port", free_port(), "--resume", "true")
    expected = newest_checkpoint(whole)[1]
    assert len(expected["ranks"]) == 2 and expected["ranks"][0] != expected["ranks"][1]
    assert_same_run(killed, scalars, (losses(scalars(whole)), expected), steps)
    refused = start(killed, "--resume", "true", "--max-steps", MAX_STEPS + 5)
    assert refused.wait() != 0
    assert "written by 2 processes, this run has 1" in killed.with_suffix(".output").read_text()


def test_resume_with_other_batches_is_refused(start, finish, never_killed, mini_data, tmp_path):
    exp = tmp_path / "exp"
    finish(exp, "--max-steps", 5)
    content = load_checkpoint(exp / "checkpoint-5.pt")
    assert content["step"] == 5 and content["config"]["task"] == "contrastive"
    assert start(exp, "--resume", "true", "--max-duration", 12).wait() != 0
    assert "max_duration 15.0 -> 12.0" in exp.with_suffix(".output").read_text()
    finish(exp, "--resume", "true", "--max-duration", 12, "--resume-mode", "reseed", "--max-steps", 7)
