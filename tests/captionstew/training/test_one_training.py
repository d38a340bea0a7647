"""Of several processes that a launcher started, the first one holds the lock."""

import subprocess
import sys

import pytest

from captionstew.locks import InUse
from captionstew.training.launch import is_first_process, one_training

HOLDER = """
import sys
from pathlib import Path
from captionstew.locks import one_writer
with one_writer(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


def test_only_the_first_process_takes_the_lock(tmp_path, monkeypatch):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], text=True, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        monkeypatch.setenv("RANK", "1")
        with one_training(tmp_path):
            assert not is_first_process()
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(InUse), one_training(tmp_path):
            pass
        holder.communicate("\n")
