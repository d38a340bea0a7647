"""Outputs are whole or not there; what killed writers left is removed, what is written is not."""

import errno
import io
import os
import signal
import subprocess
import sys

import pytest

from captionstew.errors import UserError
from captionstew.files import (
    atomic_folder,
    atomic_path,
    atomic_write,
    bounded_lines,
    check_output,
    check_output_file,
    scratch_folder,
    write_json,
)

WRITER = """
import sys, time
from pathlib import Path
from captionstew.files import atomic_folder, atomic_write
target = Path(sys.argv[1])
if target.suffix:
    with atomic_write(target, "w") as file:
        print("begun", flush=True)
        time.sleep(60)
else:
    with atomic_folder(target) as folder:
        (folder / "a").write_text("half")
        print("begun", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def writer():
    """writer(target) -> a process in the middle of writing it."""
    started = []

    def start(target):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout.readline() == b"begun\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["a.json", "store"])
def test_leftovers_of_killed_writers_go_and_live_ones_stay(tmp_path, writer, name):
    target = tmp_path / name
    killed, alive = writer(target), writer(target)
    assert len(names(tmp_path)) == 2
    killed.kill()
    killed.wait()
    if target.suffix:
        write_json(target, {"whole": True})
    else:
        with atomic_folder(target) as folder:
            (folder / "a").write_text("whole")
    assert len(names(tmp_path)) == 2 and target.exists()  # and the one that is being written
    alive.kill()
    alive.wait()
    with atomic_write(tmp_path / "a.json") as file:
        file.write(b"{}")
    with atomic_folder(tmp_path / "store") as folder:
        (folder / "a").write_text("later")
    assert names(tmp_path) == ["a.json", "store"]


def test_a_forked_process_does_not_keep_a_killed_writers_file_alive(tmp_path):
    """As a loading process does for some seconds."""
    program = (
        "import os, sys, time\n"
        "from captionstew.files import atomic_write\n"
        f"with atomic_write({str(tmp_path / 'a')!r}) as file:\n"
        "    if not os.fork(): print(os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        with atomic_write(tmp_path / "a") as file:
            file.write(b"whole")
        assert names(tmp_path) == ["a"]
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_failed_block_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(KeyError), atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise KeyError
    assert names(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_text() == "1\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_a_disk_error_names_the_file(tmp_path, number):
    with pytest.raises(OSError) as raised, atomic_write(tmp_path / "a.json"):
        raise OSError(number, os.strerror(number))
    assert raised.value.filename == str(tmp_path / "a.json")
    with pytest.raises(ConnectionError) as raised, atomic_write(tmp_path / "a.json"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
    assert raised.value.filename is None


def test_a_file_larger_than_the_limit_names_itself(tmp_path):
    program = (
        "import resource, signal\n"
        "from pathlib import Path\n"
        "from captionstew.errors import run_main\n"
        "from captionstew.files import write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"run_main(lambda: write_text(Path({str(tmp_path / 'a')!r}), 'x' * 100_000))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1 and not names(tmp_path)
    assert done.stderr == f"-c: {tmp_path / 'a'}: File too large\n"


def test_a_target_that_cannot_be_written_is_refused_before_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    check_output(tmp_path / "new" / "folder")
    check_output_file(tmp_path / "file")
    with pytest.raises(UserError, match=r"exp: cannot be written, .*file is no folder"):
        check_output(tmp_path / "file" / "exp")
    with pytest.raises(UserError, match=r"there is no folder .*new; make it first"):
        check_output_file(tmp_path / "new" / "a.csv")
    with pytest.raises(UserError, match="is a folder; name a file in it"):
        check_output_file(tmp_path)
    with pytest.raises(UserError, match=r"needs 1000000000000\.0 MB, the disk of .* MB free"):
        check_output(tmp_path / "a", needed=10**18)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="is read-only; name another place"):
        check_output(tmp_path / "a")


def test_a_line_without_end_is_refused_before_it_is_in_memory(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text("file,caption\na.wav,a dog\nb.wav," + "x" * 5000)
    reads = []

    class File(io.StringIO):
        def readline(self, size):
            line = super().readline(size)
            reads.append(len(line))
            return line

    lines = bounded_lines(File(path.read_text()), path, limit=100)
    assert [next(lines), next(lines)] == ["file,caption\n", "a.wav,a dog\n"]
    with pytest.raises(UserError, match=r"captions\.csv, line 3: longer than 100 characters"):
        next(lines)
    assert max(reads) == 101


def test_scratch_folders_of_killed_programs_go(tmp_path):
    (tmp_path / ".duckdb.0123abcd.tmp").mkdir()
    (tmp_path / ".duckdb.4567abcd.tmp").symlink_to(tmp_path)
    with scratch_folder(tmp_path / "duckdb") as first, scratch_folder(tmp_path / "duckdb") as other:
        assert first != other and len(names(tmp_path)) == 2
    assert names(tmp_path) == []
