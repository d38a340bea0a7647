"""Loading processes end with the process that reads from them."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from captionstew.data.batches import loader
from captionstew.data.batches.loader import Loader, LoaderDied

LOADER = """
import multiprocessing, os, signal, time
from captionstew.data.batches.loader import Loader

os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))

class Large:
    def __len__(self):
        return 100

    def __getitem__(self, number):
        return bytes(10**6)

loader = Loader(Large(), num_workers=1, item_bytes=10**6)
batches = iter(loader)
next(batches)
print(multiprocessing.active_children()[0].pid, flush=True)
input()
print(sum(len(next(batches)) for _ in range(10)), flush=True)
time.sleep(100)
"""


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="not on macOS")
def test_a_loading_process_with_a_full_queue_ends_when_its_parent_was_killed():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    parent = subprocess.Popen([sys.executable, "-c", LOADER], text=True, **pipes)
    worker = int(parent.stdout.readline())
    os.kill(worker, signal.SIGTERM)  # of a stranger: without effect
    time.sleep(0.5)
    too_late = threading.Timer(60, parent.kill)
    too_late.start()
    parent.stdin.write("\n")
    parent.stdin.flush()
    assert int(parent.stdout.readline() or 0) == 10**7
    too_late.cancel()
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the loading process is still there")


class Items:
    """Numbers as batches; the third does what it is asked to."""

    def __init__(self, act=lambda: None):
        self.act = act

    def __len__(self):
        return 6

    def __getitem__(self, number):
        if number == 3:
            self.act()
        return {"x": torch.full((4,), float(number)), "names": ["a"]}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def bus_error():
    os.kill(os.getpid(), signal.SIGBUS)


def sleep():
    time.sleep(60)


@pytest.mark.parametrize(
    "act, message",
    [
        (die, r"a loading process died \(killed by .*\); if memory ran out, use fewer --num"),
        (bus_error, r"died for want of shared memory \(/dev/shm\): use fewer --num-workers"),
        (sleep, "no batch came for 1 s: the loading processes live but are silent"),
    ],
)
def test_a_lost_worker_is_one_line(monkeypatch, act, message):
    monkeypatch.setattr(loader, "SILENCE_SECONDS", 1)
    read = []
    with pytest.raises(LoaderDied, match=message):
        for batch in Loader(Items(act), num_workers=1, item_bytes=100):
            read.append(int(batch["x"][0]))
    assert read == [0, 1, 2][: len(read)]


def test_an_error_of_the_data_set_is_not_taken_for_a_lost_worker():
    def fail():
        raise RuntimeError("DataLoader worker of ours")

    with pytest.raises(RuntimeError, match="of ours") as raised:
        list(Loader(Items(fail), num_workers=1, item_bytes=100))
    assert not isinstance(raised.value, LoaderDied)


def test_batches_go_through_pipes_where_shared_memory_is_small(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    plain = list(Loader(Items(), num_workers=1, item_bytes=100))
    assert plain[0]["x"].is_shared() and not caplog.text
    monkeypatch.setattr(loader, "_shared_memory", lambda: 150.0)
    through_pipes = list(Loader(Items(), num_workers=1, item_bytes=100))
    assert "/dev/shm has 0 MB free, batches ahead may take 0: they go through pipes" in caplog.text
    for one, other in zip(through_pipes, plain, strict=True):
        assert torch.equal(one["x"], other["x"]) and one["names"] == ["a"]
        assert not one["x"].is_shared()


SMALL = """
import logging
import torch
from captionstew.data.batches.loader import Loader
logging.basicConfig(level=logging.INFO)
class Batches:
    def __len__(self): return 8
    def __getitem__(self, number): return {"x": torch.full((1_000_000,), float(number))}
total = sum(float(batch["x"][-1]) for batch in Loader(Batches(), num_workers=2, item_bytes=4e6))
print(total)
"""


@pytest.mark.slow
def test_shared_memory_of_a_megabyte(tmp_path):
    """As in a container that was given none; needs the right to mount."""
    (tmp_path / "small.py").write_text(SMALL)
    script = (
        "mount -t tmpfs -o size=1m tmpfs /dev/shm || exit 77\n"
        f"exec {sys.executable} {tmp_path / 'small.py'}\n"
    )
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=120
    )
    if done.returncode in (1, 77):
        pytest.skip(f"no right to mount ({done.stderr.strip()})")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "28.0\n" and "go through pipes instead" in done.stderr
