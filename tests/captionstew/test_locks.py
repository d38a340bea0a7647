"""One writer at a time, for as long as its process lives."""

import os
import signal
import subprocess
import sys
import time

import pytest

from captionstew import locks
from captionstew.locks import InUse, lock_path, one_writer

HOLDER = """
import os, sys, time
from pathlib import Path
from captionstew.locks import one_writer
with one_writer(Path(sys.argv[1])):
    if "fork" not in sys.argv or not os.fork():
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder():
    """holder(target, ...) -> a process that holds its lock, and what it printed."""
    started = []

    def start(target, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(target), *arguments], stdout=subprocess.PIPE
        )
        started.append(process)
        return process, int(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_the_second_is_told_who_the_first_is(tmp_path, holder):
    process, _ = holder(tmp_path / "exp")
    message = rf"exp: in use by process {process.pid} on .* since \d.*: -c .*exp; wait until it"
    with pytest.raises(InUse, match=message), one_writer(tmp_path / "exp"):
        pass


def test_a_killed_holder_holds_nothing(tmp_path, holder):
    process, child = holder(tmp_path / "exp", "fork")
    process.send_signal(signal.SIGKILL)
    process.wait()
    try:  # a loading process that lives on does not keep the lock
        with one_writer(tmp_path / "exp"):
            assert f"process {os.getpid()} on" in (tmp_path / "exp" / ".lock").read_text()
    finally:
        os.kill(child, signal.SIGKILL)
    assert not list((tmp_path / "exp").iterdir())


def test_waiting_says_for_whom(tmp_path, holder, capsys):
    process, _ = holder(tmp_path / "exp")
    started = time.monotonic()
    os.posix_spawn("/bin/sh", ["sh", "-c", f"sleep 0.3; kill {process.pid}"], os.environ)
    with one_writer(tmp_path / "exp", wait=True):
        assert time.monotonic() - started > 0.2
    assert f"exp: waiting for process {process.pid} on" in capsys.readouterr().err


def test_many_that_start_together_take_turns(tmp_path):
    """None enters while another is in, and none is lost where the lock's file goes and comes."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from captionstew.locks import one_writer\n"
        "folder = Path(sys.argv[1])\n"
        "for _ in range(20):\n"
        "    with one_writer(folder, wait=True):\n"
        "        count = int((folder / 'count').read_text())\n"
        "        time.sleep(0.001)\n"
        "        (folder / 'count').write_text(str(count + 1))\n"
    )
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert (tmp_path / "count").read_text() == "80"


def test_a_program_below_a_shell_that_holds_it_may_write(tmp_path, holder, monkeypatch):
    holder(tmp_path / "data")
    held = (tmp_path / "data" / ".lock").resolve()
    monkeypatch.setenv(locks.HELD_VARIABLE, f"/other/.lock\n{held}")
    with one_writer(tmp_path / "data"):
        pass


def test_files_have_their_lock_beside_them(tmp_path):
    assert lock_path(tmp_path / "a.npz", is_file=True) == tmp_path / ".a.npz.lock"
    assert lock_path(tmp_path / "exp") == tmp_path / "exp" / ".lock"


def test_a_new_folder_with_a_dot_in_its_name_is_a_folder(tmp_path):
    with one_writer(tmp_path / "lr0.02"):
        assert (tmp_path / "lr0.02" / ".lock").is_file()
