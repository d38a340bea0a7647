"""Read by every Python program that the harness starts: a fault at the n-th call that publishes or
removes something.

FAULT_COUNTER is a file to which every such call of every process adds a byte; FAULT is `count`,
`kill-before N`, `kill-after N` or `full N`.
"""

import errno
import os
import signal

CALLS = ("replace", "rename", "fsync", "unlink", "ftruncate")
FAILING = ("replace", "rename", "fsync")  # those that a full disk refuses


def _count():
    counter = os.open(os.environ["FAULT_COUNTER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(counter, b".")
    number = os.lseek(counter, 0, os.SEEK_CUR)
    os.close(counter)
    return number


def _with_fault(name, call, action, point):
    def faulty(*args, **options):
        at_point = _count() == point
        if at_point and action == "kill-before":
            os.killpg(0, signal.SIGKILL)
        if at_point and action == "full" and name in FAILING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        result = call(*args, **options)
        if at_point and action == "kill-after":
            os.killpg(0, signal.SIGKILL)
        return result

    return faulty


if "FAULT" in os.environ:
    _action, _, _point = os.environ["FAULT"].partition(" ")
    for _name in CALLS:
        setattr(os, _name, _with_fault(_name, getattr(os, _name), _action, int(_point or 0)))
