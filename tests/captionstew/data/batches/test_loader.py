"""Loading processes end with the process that reads from them."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

LOADER = """
import os, signal, time
from captionstew.data.batches.loader import _as_it_is, _heed_parent_only, _Loader

os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))

class Large:
    def __len__(self):
        return 100

    def __getitem__(self, number):
        return bytes(10**6)

options = {"collate_fn": _as_it_is, "num_workers": 1, "worker_init_fn": _heed_parent_only}
loader = _Loader(Large(), batch_size=None, **options)
batches = iter(loader)
next(batches)
print(batches._workers[0].pid, flush=True)
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
