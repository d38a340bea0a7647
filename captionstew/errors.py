"""How programs end: one line for an error of the user, a traceback for one of ours.

if __name__ == "__main__":
    run_main(main)
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

TRACEBACK_VARIABLE = (  # set to anything: user errors show where they were raised
    "CAPTIONSTEW_TRACEBACK"
)


class UserError(Exception):
    """Input, flags or surroundings that a program cannot work with; the message says which and what
    to do.
    """


USER_ERRORS = (UserError, ValueError, OSError)


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Calls `main` and exits with its status.

    UserError, ValueError and OSError end with `<program>: <message>` on stderr and status 1, an
    interrupt from the keyboard with status 130. Every other exception keeps its traceback.
    """
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print(f"{program_name()}: interrupted", file=sys.stderr)
        sys.exit(130)
    except USER_ERRORS as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        print(f"{program_name()}: {one_line(error)}", file=sys.stderr)
        sys.exit(1)


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


def printable(text: str) -> str:
    """The text without what would steer a terminal: names and captions may hold anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
