"""Work in shares: every share once, also when workers die, on a pool and on a Dask cluster."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from captionstew.parallel import WorkersLost, process_map, run_shares


def square(share):
    folder, number = share
    (Path(folder) / str(number)).write_text(str(number**2))


def die_once(share):
    """The first process that takes share 3 is killed, as by the system when memory runs out."""
    folder, number = share
    token = Path(folder) / "died"
    if number == 3 and not token.exists():
        token.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    square(share)


def die(share):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(share):
    raise ValueError(f"share {share} is wrong")


def results(folder):
    return {
        int(path.name): int(path.read_text()) for path in folder.iterdir() if path.name.isdigit()
    }


def shares_in(folder):
    return [(str(folder), number) for number in range(6)]


WHOLE = {number: number**2 for number in range(6)}


def test_in_this_process(tmp_path):
    run_shares(square, shares_in(tmp_path))
    assert results(tmp_path) == WHOLE
    with pytest.raises(ValueError, match="share 1 is wrong"):
        run_shares(fail, [1, 2])
    run_shares(fail, [])


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The functions of this file under a name by which worker processes find them, too."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "share_work.py").write_text(Path(__file__).read_text())
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    yield importlib.import_module("share_work")
    sys.modules.pop("share_work", None)


@pytest.mark.slow
def test_pool_survives_a_killed_worker(work, tmp_path):
    (tmp_path / "out").mkdir()
    run_shares(work.die_once, shares_in(tmp_path / "out"), num_jobs=2)
    assert results(tmp_path / "out") == WHOLE and (tmp_path / "out" / "died").exists()


@pytest.mark.slow
def test_pool_gives_up_when_workers_die_again_and_again(work):
    with pytest.raises(WorkersLost, match="3 times in a row"):
        run_shares(work.die, [1, 2], num_jobs=2)


@pytest.mark.slow
def test_an_error_of_the_work_itself_is_not_retried(work):
    with pytest.raises(ValueError, match="is wrong"):
        run_shares(work.fail, [1, 2], num_jobs=2)


def test_process_map_is_in_order_and_says_when_a_process_is_lost(work, tmp_path):
    assert list(process_map(abs, [-3, 1, -2], 2)) == [3, 1, 2]
    assert list(process_map(abs, [-3, 1, -2], 1)) == [3, 1, 2]
    with pytest.raises(WorkersLost, match="a worker process died; if memory ran out, use fewer --"):
        list(process_map(work.die, [1, 2], 2))


ORPHANS = r"""
import os, time
from captionstew.parallel import process_map
def work(job):
    os.write(1, f"{os.getpid()}\n".encode())
    time.sleep(60)
list(process_map(work, range(2 * 16), 2))
"""


def test_workers_end_with_a_killed_parent():
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True)
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.05)


@pytest.mark.slow
def test_dask_survives_a_killed_worker(work, tmp_path):
    pytest.importorskip("distributed")
    (tmp_path / "out").mkdir()
    run_shares(work.die_once, shares_in(tmp_path / "out"), num_jobs=2, dask_scheduler="local")
    assert results(tmp_path / "out") == WHOLE and (tmp_path / "out" / "died").exists()
