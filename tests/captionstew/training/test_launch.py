"""Two local processes: when one of them ends, so does the other, and one line says why."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("two_processes.py")


@pytest.fixture
def start(tmp_path, free_port):
    """start(what) -> the watching process; the others leave their ids in tmp_path/pid-<rank>."""

    def start(what):
        command = [sys.executable, str(PROGRAM), what, str(tmp_path), str(free_port())]
        environment = {name: value for name, value in os.environ.items() if name != "RANK"}
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    return start


def wait_for(*paths, seconds=120):
    deadline = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"no {paths}"
        time.sleep(0.02)


def alive(path):
    try:
        os.kill(int(path.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def assert_both_end(tmp_path, seconds=20):
    deadline = time.monotonic() + seconds
    while any(alive(tmp_path / f"pid-{rank}") for rank in range(2)):
        assert time.monotonic() < deadline, "a process lives on"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "what, line, traceback",
    [
        (
            "value",
            (
                "two_processes.py: --epoch 9: no such epoch (process 1 of 2; the others were ended"
                " too)"
            ),
            False,
        ),
        ("bug", "two_processes.py: 'x' (process 1 of 2; the others were ended too)", True),
        (
            "sigkill",
            (
                "two_processes.py: process 1 of 2 was killed by SIGKILL; the others were ended"
                " too. If "
            ),
            False,
        ),
    ],
)
def test_a_process_that_dies_ends_the_others(start, tmp_path, what, line, traceback):
    process = start(what)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith(line), errors
    assert ("Traceback" in errors) == traceback
    assert_both_end(tmp_path)


@pytest.mark.parametrize("to_all", [False, True])
def test_sigterm_reaches_every_process(start, tmp_path, to_all):
    """Sent to the watching process alone, or to the whole group."""
    process = start("sigterm")
    wait_for(tmp_path / "ready-0", tmp_path / "ready-1")
    os.killpg(process.pid, signal.SIGTERM) if to_all else process.terminate()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and "Traceback" not in errors, errors
    assert (tmp_path / "saved-0").exists() and (tmp_path / "saved-1").exists()


def test_no_process_outlives_the_one_that_watches(start, tmp_path):
    process = start("idle")
    wait_for(tmp_path / "ready-0", tmp_path / "ready-1")
    process.kill()
    process.wait()
    assert_both_end(tmp_path)


def test_gradients_are_summed_over_processes(start, tmp_path):
    """A parameter without a gradient counts as zero."""
    process = start("gradients")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    for rank in range(2):
        assert (tmp_path / f"summed-{rank}").read_text() == "[(3.0, 0.0), (3.0, 0.0)]"


def test_the_main_process_goes_first(start, tmp_path):
    process = start("main first")
    assert process.wait(timeout=300) == 0, process.stderr.read()
    assert (tmp_path / "order").read_text().split() == ["0", "1"]
