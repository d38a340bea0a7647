"""One shell program per folder; what it started ends with it."""

import os
import signal
import subprocess
import sys
import time

import pytest

SHELL = """
set -euo pipefail
. {repository}/shared/one_run.sh
take_lock {folder}/.lock {wait}
echo locked
python program.py
"""
PROGRAM = """
import os, sys, time
from captionstew.errors import run_main
def main():
    print(os.getpid(), flush=True)
    time.sleep(60)
run_main(main)
"""


@pytest.fixture
def start(repository, tmp_path):
    """start(wait) -> a shell that locks tmp_path/data and calls a program."""
    (tmp_path / "program.py").write_text(PROGRAM)
    started = []

    def run(wait="false"):
        script = SHELL.format(repository=repository, folder=f"'{tmp_path}/data'", wait=wait)
        process = subprocess.Popen(
            ["bash", "-c", script, "job.sh"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=surroundings(),
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()


def surroundings():
    """As on a terminal: no program has started this one."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("CAPTIONSTEW_")}
    return own | {"PATH": os.path.dirname(sys.executable) + ":" + os.environ["PATH"]}


def wait_for_end(process, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {process} lives on")


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_shell_that_is_killed_takes_its_program_with_it(start, ending):
    shell = start()
    assert shell.stdout.readline() == "locked\n"
    program = int(shell.stdout.readline())
    shell.send_signal(ending)
    shell.wait()
    wait_for_end(program)


def test_the_second_shell_ends_with_one_line_and_the_lock_goes_with_the_first(start, tmp_path):
    first = start()
    assert first.stdout.readline() == "locked\n"
    second = start()
    assert second.wait() == 1 and second.stdout.read() == ""
    (line,) = second.stderr.read().splitlines()
    assert line.startswith(f"job.sh: {tmp_path}/data: in use by process {first.pid} on ")
    program = int(first.stdout.readline())
    first.kill()
    first.wait()
    wait_for_end(program)
    assert start().stdout.readline() == "locked\n"


def test_the_second_waits_where_it_may(start):
    first = start()
    assert first.stdout.readline() == "locked\n"
    second = start(wait="true")
    assert second.stderr.readline().startswith(f"waiting for process {first.pid} on ")
    first.kill()
    assert second.stdout.readline() == "locked\n"


def test_programs_of_a_locked_folder_may_write_and_others_may_not(start, tmp_path):
    locker = (
        "from pathlib import Path\n"
        "from captionstew.errors import run_main\n"
        "from captionstew.locks import one_writer\n"
        "def main():\n"
        f"    with one_writer(Path({str(tmp_path / 'data')!r})): print('in', flush=True)\n"
        "run_main(main)\n"
    )
    (tmp_path / "program.py").write_text(locker)
    shell = start()
    assert shell.stdout.read() == "locked\nin\n" and shell.wait() == 0
    (tmp_path / "program.py").write_text(PROGRAM)
    holder = start()
    assert holder.stdout.readline() == "locked\n"
    done = subprocess.run(
        [sys.executable, "-c", locker], capture_output=True, text=True, env=surroundings()
    )
    assert done.returncode == 1 and f"in use by process {holder.pid} on" in done.stderr
