"""How programs end: one line for an error of the user, a traceback for one of ours.

if __name__ == "__main__":
    run_main(main)
"""

import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

TRACEBACK_VARIABLE = (  # set to anything: user errors show where they were raised
    "CAPTIONSTEW_TRACEBACK"
)
SHELL_VARIABLE = "CAPTIONSTEW_SHELL"  # process that started the run (shared/one_run.sh)


NO_SHARED_MEMORY = (
    "a loading process died for want of shared memory (/dev/shm): use fewer --num-workers or a"
    " smaller --max-duration, or give the container more (--shm-size)"
)


class UserError(Exception):
    """Input, flags or surroundings that a program cannot work with; the message says which and what
    to do.
    """


USER_ERRORS = (UserError, ValueError, OSError)


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Calls `main` and exits with its status.

    UserError, ValueError and OSError, and the death of a loading process, end with
    `<program>: <message>` on stderr and status 1, an interrupt from the keyboard with status 130.
    Every other exception keeps its traceback.
    """
    end_with_shell()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print(f"{program_name()}: interrupted", file=sys.stderr)
        sys.exit(130)
    except (*USER_ERRORS, RuntimeError) as error:
        line = one_line(error) if isinstance(error, USER_ERRORS) else lost_worker(error)
        if not line or os.environ.get(TRACEBACK_VARIABLE):
            raise
        print(f"{program_name()}: {line}", file=sys.stderr)
        sys.exit(1)


def end_with_shell() -> None:
    """Lets this program get SIGTERM as soon as the program that started the run is gone, be it
    killed: nobody would see to what goes on (SHELL_VARIABLE; by hand, the first program itself).
    """
    shell = int(os.environ.setdefault(SHELL_VARIABLE, str(os.getpid())))
    if shell != os.getpid():
        threading.Thread(target=_watch, args=(shell,), daemon=True).start()


def _watch(process: int) -> None:
    try:
        try:
            select.select([os.pidfd_open(process)], [], [])
        except (AttributeError, OSError) as error:  # another system, or an old kernel
            if isinstance(error, ProcessLookupError):
                raise
            while True:
                os.kill(process, 0)
                time.sleep(1)
    except ProcessLookupError:
        pass
    print(f"{program_name()}: process {process}, which started this, is gone", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)


def program_name() -> str:
    return Path(sys.argv[0]).name


def one_line(error: BaseException) -> str:
    """The error's message without line breaks; of an error in a loading process, what was raised
    there.
    """
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return printable(f"{error.filename}: {error.strerror}")
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if lines[0].startswith("Caught ") and " DataLoader worker process " in lines[0]:
        lines = [
            lines[-1].partition(": ")[2] or lines[-1]
        ]  # torch hands over the worker's whole traceback as message
    return printable(" ".join(" ".join(lines).split()))


def lost_worker(error: BaseException) -> str:
    """What torch says, wherever the program is just then, of a loading process that died; empty for
    other errors.
    """
    found = re.match(
        r"DataLoader worker \(pid.*?\) (is killed by signal: [\w ]+|exited)", str(error)
    )
    if found is None:
        return ""
    if "Bus error" in found[1]:
        return NO_SHARED_MEMORY
    how = found[1].removeprefix("is ").strip()
    return f"a loading process died ({how}); if memory ran out, use fewer --num-workers"


def printable(text: str) -> str:
    """The text without what would steer a terminal: names and captions may hold anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
