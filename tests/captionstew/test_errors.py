"""run_main: one line for the user's errors, a traceback for ours."""

import subprocess
import sys

import pytest

PROGRAM = """
from captionstew.errors import UserError, run_main
def main():
    {body}
run_main(main)
"""


@pytest.fixture
def outcome(tmp_path):
    """outcome(body of main) -> (exit status, stderr)."""

    def run(body, **environment):
        path = tmp_path / "job.py"
        path.write_text(PROGRAM.format(body=body))
        done = subprocess.run(
            [sys.executable, path], capture_output=True, text=True, env=environment or None
        )
        return done.returncode, done.stderr

    return run


@pytest.mark.parametrize(
    "body, line",
    [
        ("raise UserError('a.wav: too\\n  short')", "job.py: a.wav: too short"),
        ("raise ValueError('--epoch 0')", "job.py: --epoch 0"),
        ("raise ValueError", "job.py: ValueError"),
        ("open('/no/such/file')", "job.py: /no/such/file: No such file or directory"),
        ("raise OSError('disk on fire')", "job.py: disk on fire"),
    ],
)
def test_a_users_error_is_one_line_and_status_1(outcome, body, line):
    assert outcome(body) == (1, line + "\n")


def test_other_errors_keep_their_traceback(outcome):
    status, text = outcome("raise KeyError('x')")
    assert status == 1 and "Traceback" in text and "line 4, in main" in text
    assert "Traceback" in outcome("raise ValueError('x')", CAPTIONSTEW_TRACEBACK="1")[1]


@pytest.mark.parametrize(
    "body, status", [("return None", 0), ("return 3", 3), ("raise KeyboardInterrupt", 130)]
)
def test_statuses(outcome, body, status):
    assert outcome(body)[0] == status


@pytest.mark.slow
def test_an_error_in_a_loading_process_is_one_line(outcome):
    body = """
    from torch.utils.data import DataLoader
    class Broken:
        def __len__(self): return 1
        def __getitem__(self, i): raise UserError("a.wav: no: such, file")
    list(DataLoader(Broken(), num_workers=1))
    """
    assert outcome(body.strip()) == (1, "job.py: a.wav: no: such, file\n")


@pytest.mark.parametrize(
    "message, line",
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "died (killed by signal: Kil"),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "died (exited); if memory ran out"),
        (
            "DataLoader worker (pid 7) is killed by signal: Bus error. It",
            "for want of shared memory",
        ),
    ],
)
def test_a_loading_process_that_died_is_one_line(outcome, message, line):
    """torch raises it wherever the main process is just then."""
    status, stderr = outcome(f"raise RuntimeError({message!r})")
    assert status == 1 and line in stderr and len(stderr.splitlines()) == 1
    status, stderr = outcome("raise RuntimeError('shapes do not match')")
    assert status == 1 and "Traceback" in stderr


def test_what_would_steer_a_terminal_is_not_printed(outcome):
    status, stderr = outcome("raise ValueError('a\\x1b[2Jb')")
    assert status == 1 and stderr.endswith(": a?[2Jb\n") and "\x1b" not in stderr
