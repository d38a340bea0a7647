"""Starting processes: one, several on this machine (`--world-size N`), or one of many that torchrun
or Slurm started.

With `--world-size N` this process only watches: it hands SIGTERM on to the others, which save and
end, and when one of them dies it ends the rest, because they would wait for it without end.
"""

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

import torch.distributed as dist

from captionstew.checkpoint import seed_generators
from captionstew.distributed import Rank, pick_device
from captionstew.errors import USER_ERRORS, UserError, one_line
from captionstew.files import write_text
from captionstew.flags import flags_to_dict
from captionstew.locks import one_writer
from captionstew.parallel import end_with
from captionstew.training.flags import TrainingFlags
from captionstew.training.log import start_logging

FlagsT = TypeVar("FlagsT", bound=TrainingFlags)
Ts = TypeVarTuple("Ts")
TIMEOUT = timedelta(minutes=30)
FIRST_REPORT_SECONDS = 1.0  # how long a failed process's own account is waited for


class ProcessDied(UserError):
    """One of several processes ended before its time, so the others were ended as well."""


@dataclass(frozen=True)
class Failure:
    """What a process reports of itself before it ends: when, one line, and a traceback unless it is
    a user's error.
    """

    time: float
    message: str
    traceback: str


@dataclass
class Child:
    rank: int
    process: BaseProcess
    reports: Connection

    def failure(self) -> Failure | None:
        """Its report, if it left one."""
        try:
            return self.reports.recv() if self.reports.poll() else None
        except EOFError:
            return None


def launch_training(run: Callable[[Rank, FlagsT], None], flags: FlagsT) -> None:
    """Calls run(rank, flags) in every process that the flags ask for, its messages logged and its
    generator seeded.

    <exp-dir>/flags.json says what was asked for.

    Raises:
      InUse: another training writes to --exp-dir.
    """
    arguments = (flags.world_size, flags.master_port, flags.device, run, flags)
    with one_training(flags.exp_dir):
        if is_first_process():
            text = json.dumps(flags_to_dict(flags), indent=2)
            write_text(flags.exp_dir / "flags.json", text + "\n")
        launch(_begin, *arguments)


@contextlib.contextmanager
def one_training(exp_dir: Path) -> Iterator[None]:
    """The lock of --exp-dir; of several processes that write together the first one holds it."""
    with one_writer(exp_dir) if is_first_process() else contextlib.nullcontext():
        yield


def is_first_process() -> bool:
    """Whether no launcher started this, or it is the first of those that it started."""
    return os.environ.get("RANK", "0") == "0"


def _begin(rank: Rank, run: Callable[[Rank, FlagsT], None], flags: FlagsT) -> None:
    start_logging(flags.exp_dir, rank.rank, rank.world_size)
    logging.info("%s", flags_to_dict(flags))
    seed_generators(flags.seed)
    run(rank, flags)


def launch(
    function: Callable[[Rank, *Ts], None],
    world_size: int,
    master_port: int,
    device: str,
    *args: *Ts,
) -> None:
    """Calls function(rank, *args) in every process.

    Under torchrun, or with RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set by hand,
    this process is one of many and the environment decides. Otherwise `world_size` local processes
    are started.

    Raises:
      ProcessDied: one of the local processes failed or was killed; the message says which and why.
    """
    if "RANK" in os.environ:
        place, local, count = (
            int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")
        )
        _run_rank(place, local, count, device, function, args)
    elif world_size == 1:
        function(Rank(0, 0, 1, pick_device(device, 0)), *args)
    else:
        _refuse_used_port(master_port)
        os.environ["MASTER_ADDR"] = "localhost"
        os.environ["MASTER_PORT"] = str(master_port)
        children = [_start(rank, world_size, device, function, args) for rank in range(world_size)]
        try:
            with _handing_on_sigterm(children) as asked:
                _watch(children, asked)
        finally:
            for child in children:
                child.process.kill()


def _refuse_used_port(port: int) -> None:
    """Raises ValueError where the processes could not meet."""
    try:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("", port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"--master-port {port} cannot be used ({reason}); take another, such as {port + 1}"
        ) from error


def _start(rank: int, world_size: int, device: str, function: Callable, args: tuple) -> Child:
    context = multiprocessing.get_context("spawn")
    reports, writer = context.Pipe(duplex=False)
    process = context.Process(
        target=_child, args=(rank, world_size, device, function, args, writer)
    )
    process.start()
    writer.close()
    return Child(rank, process, reports)


def _child(
    rank: int, world_size: int, device: str, function: Callable, args: tuple, reports: Connection
) -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    # A spawned process would spawn its loaders too, which costs seconds at every validation.
    multiprocessing.set_start_method(None, force=True)
    try:
        _run_rank(rank, rank, world_size, device, function, args)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        trace = "" if isinstance(error, USER_ERRORS) else traceback.format_exc()
        reports.send(Failure(time.monotonic(), one_line(error), trace))
        os._exit(1)  # an orderly end would wait for the other processes


def _run_rank(
    rank: int, local_rank: int, world_size: int, device_name: str, function: Callable, args: tuple
) -> None:
    device = pick_device(device_name, local_rank)
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=TIMEOUT)
    except dist.DistNetworkError as error:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(
            f"process {rank} of {world_size} cannot meet the others at {place}"
            f" ({str(error).splitlines()[0]}); is the port in use? Take another: --master-port"
        ) from error
    try:
        function(Rank(rank, local_rank, world_size, device), *args)
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise ProcessDied(
                f"process {rank} of {world_size} lost another one, which says why ({error})"
            ) from error
        raise
    dist.destroy_process_group()


@contextlib.contextmanager
def _handing_on_sigterm(children: list[Child]) -> Iterator[threading.Event]:
    """While open, SIGTERM goes on to the children, and sets the event."""
    asked = threading.Event()

    def hand_on(*_: Any) -> None:
        asked.set()
        for child in children:
            child.process.terminate()

    previous = signal.signal(signal.SIGTERM, hand_on)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, previous)


def _watch(children: list[Child], asked: threading.Event) -> None:
    """Returns when all have ended well; raises ProcessDied as soon as one has not."""
    running = list(children)
    while running:
        wait([child.process.sentinel for child in running])
        ended = [child for child in running if not child.process.is_alive()]
        running = [child for child in running if child not in ended]
        codes = [child.process.exitcode for child in ended]
        if asked.is_set() and -signal.SIGTERM in codes:
            logging.warning("stopped on request before training began")
            return
        if any(codes):
            time.sleep(FIRST_REPORT_SECONDS)
            raise ProcessDied(_why(children))


def _why(children: list[Child]) -> str:
    """What happened first, in one line; the traceback of an error of ours goes to stderr."""
    world_size = len(children)
    for child in children:
        code = child.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return (
                f"process {child.rank} of {world_size} was killed by {name}; the others were ended"
                " too. If it was not killed by hand, memory may have run out. Go on with --resume"
                " true"
            )
    failures = [
        (failure.time, child.rank, failure)
        for child in children
        if (failure := child.failure()) is not None
    ]
    if not failures:
        return f"one of {world_size} processes ended without a word; the others were ended too"
    _, rank, first = min(failures, key=lambda entry: entry[:2])
    if first.traceback:
        print(first.traceback, file=sys.stderr, end="")
    return f"{first.message} (process {rank} of {world_size}; the others were ended too)"
