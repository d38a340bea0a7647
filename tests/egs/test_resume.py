"""A training that is interrupted and resumed gives the numbers of one that never was, to the last
digit.

All three objectives, one and two processes; SIGKILL at a random moment, SIGTERM to the whole
process group, a truncated newest checkpoint, a full disk. Everything random is on: dropout, layer
skipping, Balancer and Whiten, SpecAugment, gain, crop, delay, shuffling, one caption per epoch,
parallel decoding, weighted sampling, mixup; two loading processes. The schedules' batch count moves
by 10 at every step.
"""

import math
import multiprocessing
import os
import random
import resource
import signal
import time

import pytest
import torch

from captionstew.checkpoint import load_checkpoint, newest_checkpoint

pytestmark = pytest.mark.slow

SAVE_EVERY = 8
MAX_STEPS = 40
SHARED_FLAGS = [
    "--num-workers", 2, "--log-interval", 1, "--save-every-n", SAVE_EVERY, "--average-period", 4,
    "--valid-clips", 4, "--max-steps", MAX_STEPS, "--num-epochs", 100, "--augment-gain-db", 6,
    "--augment-min-crop", 0.7, "--augment-max-delay", 0.2, "--tensorboard", "false",
    "--max-duration", 15, "--ref-duration", 1.5, "--lr-batches", 100, "--warm-step", 20,
]  # fmt: skip
OWN_FLAGS = {
    "contrastive": ["--text-tower", "tiny", "--embedding-dim", 16],
    "captioning": ["--text-decoder", "tiny", "--max-caption-tokens", 16, "--valid-captions", 2],
    # Its checkpoints must be larger than a batch: the full disk would keep the loaders' shared
    # memory small as well.
    "tagging": ["--weighted-sampler", "true", "--mixup", 0.5, "--feedforward-dim", "512,512"],
}
INITIAL_WHITEN_PROB = 0.25
TIMES = (
    "time",
    "audio_seconds_per_second",
    "data_wait_share",
)  # all else in a record depends on the run alone
PRELOADED = [
    "captionstew.training.loop",
    "captionstew.data.batches.captioned",
    "transformers",
    "lhotse.dataset",
    "sklearn.metrics",
]
RUN = """
import multiprocessing, os, runpy, sys, time
from captionstew.training.log import ScalarLog
os.setsid()
for descriptor in (1, 2):
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
os.environ.update(environment)
write = ScalarLog.write
def write_and_hold(log, kind, step, *rest):
    write(log, kind, step, *rest)
    while (kind, step) == ("train", hold) and log._lines and not os.path.exists(released):
        time.sleep(0.005)
ScalarLog.write = write_and_hold
multiprocessing.set_start_method("fork", force=True)
sys.argv = argv
runpy.run_path(argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def forks():
    """A server that has imported everything already: a training starts in no time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@pytest.fixture(scope="module")
def start(forks, mini_data, repository, tiny_encoder):
    """start(objective, exp, flag, value, ..., hold=step) -> the running training, in a process
    group of its own.

    The process that logs the step `hold` goes on from there when `release(exp)` was called.
    """

    def start(objective, exp, *flags, hold=0, **environment):
        program = repository / "egs" / "captionstew" / objective / "train.py"
        text = [] if objective == "tagging" else ["--tokenizer", mini_data / "bpe.model"]
        places = [program, "--manifest-dir", mini_data, "--exp-dir", exp]
        argv = [
            str(word)
            for word in [
                *places,
                *text,
                *tiny_encoder,
                *OWN_FLAGS[objective],
                *SHARED_FLAGS,
                *flags,
            ]
        ]
        exp.mkdir(parents=True, exist_ok=True)
        exp.with_suffix(".released").unlink(missing_ok=True)
        scope = {"argv": argv, "output": str(output_of(exp)), "environment": environment}
        scope |= {"hold": hold, "released": str(exp.with_suffix(".released"))}
        process = forks.Process(target=exec, args=(RUN, scope))
        process.start()
        started.append(process)
        return process

    started = []
    yield start
    for process in started:
        if process.is_alive():  # of a test that failed
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def start_two(start, free_port):
    """start_two(objective, exp, ...) -> two trainings that meet, as torchrun would start them."""

    def start_two(objective, exp, *flags, hold=0):
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
        flags = ("--num-workers", 1, "--max-steps", MAX_STEPS // 2, *flags)
        place |= {"hold": hold}
        return [
            start(objective, exp, *flags, RANK=str(rank), LOCAL_RANK=str(rank), **place)
            for rank in range(2)
        ]

    return start_two


@pytest.fixture(scope="module")
def never_killed(start, start_two, scalars, tmp_path_factory):
    """never_killed(objective, processes) -> step -> numbers of a training without interruption; its
    last checkpoint.
    """
    found = {}

    def run(objective, processes=1):
        if (objective, processes) not in found:
            exp = tmp_path_factory.mktemp("reference") / "exp"
            finish(exp, *(start_two(objective, exp) if processes == 2 else [start(objective, exp)]))
            found[objective, processes] = numbers(scalars(exp)), newest_checkpoint(exp)[1]
        return found[objective, processes]

    return run


def output_of(exp):
    return exp.with_suffix(".output")


def release(exp):
    exp.with_suffix(".released").touch()


def finish(exp, *processes):
    """Waits for trainings that must end well."""
    for process in processes:
        process.join(timeout=600)
        assert process.exitcode == 0, output_of(exp).read_text()


def numbers(records):
    """Step -> everything that depends on the parameters; a later record of a step replaces an
    earlier one.
    """
    return {
        record["step"]: {k: v for k, v in record.items() if k not in TIMES} for record in records
    }


def wait_for_step(process, exp, scalars, step):
    """Returns as soon as the step has been logged."""
    while process.is_alive():
        records = scalars(exp)
        if records and records[-1]["step"] >= step:
            return
        time.sleep(0.005)
    raise AssertionError("the training ended by itself:\n" + output_of(exp).read_text())


def kill_between_checkpoints(process, exp, scalars, first_step):
    """SIGKILL to the training and its loaders some steps after a checkpoint; returns the last step
    logged.
    """
    while True:
        wait_for_step(process, exp, scalars, first_step)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(0.05)
        last = scalars(exp)[-1]["step"]
        if last % SAVE_EVERY not in (0, SAVE_EVERY - 1):
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
            return last
        os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.005)


def assert_same_run(exp, scalars, expected, steps=MAX_STEPS):
    """Every number ever logged, before and after interruptions, and the final parameters."""
    expected_numbers, expected_checkpoint = expected
    assert [record["step"] for record in scalars(exp)] == list(range(1, steps + 1))
    for record in scalars(exp):
        assert numbers([record])[record["step"]] == expected_numbers[record["step"]]
    found = newest_checkpoint(exp)[1]
    assert found["step"] == steps
    for part in ("model", "model_avg"):
        for name, value in expected_checkpoint[part].items():
            assert (found[part][name] == value).all(), f"{part} {name}"


@pytest.mark.parametrize("objective", OWN_FLAGS)
def test_sigkill_at_a_random_moment(start, scalars, never_killed, tmp_path, objective):
    expected = never_killed(objective)
    exp = tmp_path / "exp"
    moment = random.randint(2 * SAVE_EVERY + 1, MAX_STEPS - SAVE_EVERY)
    last = kill_between_checkpoints(start(objective, exp, hold=MAX_STEPS - 2), exp, scalars, moment)
    path, content = newest_checkpoint(exp)
    assert SAVE_EVERY <= content["step"] <= last
    probabilities = content["ranks"][0]["encoder"]["whiten_prob"].values()
    assert any(probability != INITIAL_WHITEN_PROB for probability in probabilities)
    finish(exp, start(objective, exp, "--resume", "true"))
    assert f"restored {path}" in output_of(exp).read_text()
    assert_same_run(exp, scalars, expected)


@pytest.mark.parametrize("objective", OWN_FLAGS)
def test_full_disk_truncated_checkpoint_and_sigterm(
    start, scalars, never_killed, tmp_path, objective
):
    """One after the other, in one run."""
    expected = never_killed(objective)
    exp = tmp_path / "exp"

    process = start(objective, exp, hold=SAVE_EVERY + 1)
    wait_for_step(process, exp, scalars, SAVE_EVERY + 1)
    size = (exp / f"checkpoint-{SAVE_EVERY}.pt").stat().st_size
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size // 2, size // 2))
    release(exp)
    process.join(timeout=120)
    assert process.exitcode == 1
    lines = output_of(exp).read_text().splitlines()
    assert (
        lines[-1].startswith(f"train.py: {exp}/")
        and "cannot be written (File too large)" in lines[-1]
    )
    assert not any("Traceback" in line for line in lines)
    assert all(load_checkpoint(path) for path in exp.glob("*.pt")) and not list(exp.glob(".*"))

    process = start(objective, exp, "--resume", "true", hold=MAX_STEPS - 2)
    last = kill_between_checkpoints(process, exp, scalars, 2 * SAVE_EVERY + 1)
    newest = newest_checkpoint(exp)[0]
    with open(newest, "r+b") as file:
        file.truncate(size // 2)

    process = start(objective, exp, "--resume", "true", hold=last + 1)
    wait_for_step(process, exp, scalars, last + 1)
    os.killpg(process.pid, signal.SIGTERM)  # as Slurm does: to the loaders as well
    release(exp)
    finish(exp, process)
    output = output_of(exp).read_text()
    assert f"falling back to an older checkpoint: {newest}" in output
    assert "stopped on request at step" in output and "Traceback" not in output

    finish(exp, start(objective, exp, "--resume", "true"))
    assert_same_run(exp, scalars, expected)


def test_the_preflight_changes_no_number(start, scalars, never_killed, tmp_path):
    expected = never_killed("contrastive")
    exp = tmp_path / "exp"
    finish(exp, start("contrastive", exp, "--preflight", "false"))
    assert_same_run(exp, scalars, expected)


def test_world_size_2_and_a_signal_to_the_watching_process(
    start, free_port, scalars, never_killed, tmp_path
):
    """As if the two had been started by themselves."""
    exp = tmp_path / "exp"
    flags = ("--world-size", 2, "--num-workers", 1, "--max-steps", MAX_STEPS // 2, "--master-port")
    process = start("contrastive", exp, *flags, free_port())
    wait_for_step(process, exp, scalars, SAVE_EVERY + 2)
    process.terminate()
    finish(exp, process)
    output = output_of(exp).read_text()
    assert "stopped on request at step" in output and "Traceback" not in output
    finish(exp, start("contrastive", exp, *flags, free_port(), "--resume", "true"))
    assert_same_run(exp, scalars, never_killed("contrastive", processes=2), MAX_STEPS // 2)


@pytest.mark.parametrize("objective", OWN_FLAGS)
def test_bfloat16_on_a_cpu(start, scalars, tmp_path, objective):
    """Every objective trains, with finite losses and parameters in float32."""
    exp = tmp_path / "exp"
    finish(exp, start(objective, exp, "--use-bf16", "true", "--max-steps", 6))
    records = scalars(exp)
    assert len(records) == 6 and all(math.isfinite(record["loss"]) for record in records)
    weights = newest_checkpoint(exp)[1]["model"].values()
    assert {value.dtype for value in weights if value.is_floating_point()} == {torch.float32}


def test_accumulated_gradients_of_two_processes(start_two, scalars, tmp_path):
    """A step takes two batches of either process."""
    exp = tmp_path / "exp"
    finish(exp, *start_two("tagging", exp, "--accum-grad", 2, "--max-steps", 2))
    content = newest_checkpoint(exp)[1]
    assert content["step"] == 2 and content["position"]["consumed"] == 4
    weights = [value for value in content["model"].values() if value.is_floating_point()]
    assert all(value.isfinite().all() for value in weights)
    assert all(30 < record["batch_seconds"] <= 60 for record in scalars(exp))


@pytest.mark.parametrize("objective", OWN_FLAGS)
def test_accumulated_gradients(start, scalars, tmp_path, objective):
    """Captioning and tagging accumulate; the contrastive objective says why it does not."""
    exp = tmp_path / "exp"
    process = start(objective, exp, "--accum-grad", 3, "--max-steps", 4)
    if objective == "contrastive":
        process.join()
        output = output_of(exp).read_text()
        assert (
            process.exitcode == 2 and "--accum-grad does not go with a contrastive loss" in output
        )
    else:
        finish(exp, process)
        assert [record["step"] for record in scalars(exp)] == [1, 2, 3, 4]
        assert all(20 < record["batch_seconds"] <= 45 for record in scalars(exp)[:3])


@pytest.mark.parametrize("objective", OWN_FLAGS)
def test_two_processes(start_two, start, scalars, never_killed, tmp_path, objective):
    """One of two is killed, the other's disk is full, both are asked to stop, the newest checkpoint
    is cut short.
    """
    expected = never_killed(objective, processes=2)
    assert len(expected[1]["ranks"]) == 2 and expected[1]["ranks"][0] != expected[1]["ranks"][1]
    exp = tmp_path / "exp"

    first, second = start_two(objective, exp, hold=SAVE_EVERY + 2)
    wait_for_step(first, exp, scalars, SAVE_EVERY + 2)
    os.killpg(second.pid, signal.SIGKILL)
    release(exp)
    first.join(timeout=120)
    assert first.exitcode == 1
    assert (
        "train.py: process 0 of 2 lost another one" in output_of(exp).read_text().splitlines()[-1]
    )

    processes = start_two(objective, exp, "--resume", "true")
    size = (exp / f"checkpoint-{SAVE_EVERY}.pt").stat().st_size
    resource.prlimit(processes[0].pid, resource.RLIMIT_FSIZE, (size // 2, size // 2))
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 1
    output = output_of(exp).read_text()
    assert (
        "cannot be written (File too large)" in output
        and "process 1 of 2 lost another one" in output
    )
    assert newest_checkpoint(exp)[1]["step"] == SAVE_EVERY
    logged = max(row["step"] for row in scalars(exp))

    processes = start_two(objective, exp, "--resume", "true", hold=logged + 1)
    wait_for_step(processes[0], exp, scalars, logged + 1)
    os.killpg(processes[1].pid, signal.SIGTERM)
    release(exp)
    finish(exp, *processes)
    assert "stopped on request at step" in output_of(exp).read_text()

    refused = start(objective, exp, "--resume", "true")
    refused.join()
    assert (
        refused.exitcode == 1
        and "was written by 2 processes, this run has 1" in output_of(exp).read_text()
    )

    newest = newest_checkpoint(exp)[0]
    with open(newest, "r+b") as file:
        file.truncate(size // 2)
    finish(exp, *start_two(objective, exp, "--resume", "true"))
    assert f"falling back to an older checkpoint: {newest}" in output_of(exp).read_text()
    assert_same_run(exp, scalars, expected, MAX_STEPS // 2)
