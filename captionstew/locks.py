"""One writer at a time: a lock that lives exactly as long as the process that holds it.

    with one_writer(flags.exp_dir):
        train()

The lock is the kernel's (flock) on a file beside or in what is written, which says who holds it; a
kill leaves nothing behind that would have to be cleaned up.
"""

import fcntl
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from captionstew.errors import UserError, program_name

# locks that a shell program holds for the programs that it calls (shared/one_run.sh); one a line
HELD_VARIABLE = "CAPTIONSTEW_LOCKS"
_held: dict[str, IO[str]] = {}


class InUse(UserError):
    """Another process writes there; the message says which."""


@contextmanager
def one_writer(target: Path, wait: bool = False, is_file: bool = False) -> Iterator[None]:
    """Keeps other processes from writing `target`, a folder (made if need be) or with `is_file` a
    file, while the block runs.

    Args:
      wait: until the other one has ended, instead of raising; says so on stderr.

    Raises:
      InUse: another process holds the lock.
    """
    path = lock_path(target, is_file)
    name = str(path.resolve())
    if name in os.environ.get(HELD_VARIABLE, "").splitlines():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _acquire(path, target, wait)
    _held[name] = file
    try:
        yield
    finally:
        if _held.pop(name, None) is not None:
            path.unlink(missing_ok=True)
            file.close()


def lock_path(target: Path, is_file: bool = False) -> Path:
    """`<folder>/.lock`, or `.<name>.lock` beside a file."""
    return target.with_name(f".{target.name}.lock") if is_file else target / ".lock"


def _acquire(path: Path, target: Path, wait: bool) -> IO[str]:
    """The open lock file. Whoever had it before removes it, so the one that was locked may not be
    the one that is there.
    """
    while True:
        file = open(path, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115
        try:
            _lock(file, target, wait)
        except BaseException:
            file.close()
            raise
        try:
            if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
                break
        except FileNotFoundError:
            pass
        file.close()
    file.truncate(0)
    file.write(_holder() + "\n")
    file.flush()
    return file


def _lock(file: IO[str], target: Path, wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = " ".join(file.read().split()) or "another process"
        if not wait:
            raise InUse(
                f"{target}: in use by {holder}; wait until it has ended, or name another place"
            ) from None
        print(f"{program_name()}: {target}: waiting for {holder}", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        logging.warning(
            "%s cannot be locked here (%s): see to it that no other process writes there",
            target,
            error.strerror,
        )


def _holder() -> str:
    began = time.strftime("%Y-%m-%d %H:%M:%S")
    command = shlex.join([program_name(), *sys.argv[1:]])[:200]
    return f"process {os.getpid()} on {socket.gethostname()} since {began}: {command}"


def _forget_in_child() -> None:
    """A loading process that outlives its training must not keep the lock."""
    for file in _held.values():
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
