"""Work in shares, on local processes or on a Dask cluster, that survives the loss of a worker.

A share is a small picklable description; the work writes its result under the share's own file
name, atomically, so a share that is there is never done twice, and a share that a dying worker
leaves behind is simply done again.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from tqdm import tqdm

from captionstew.errors import UserError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
CHUNK = 16  # jobs that a process takes at a time
MAX_LOSSES = 3  # times that workers may die without any share being finished in between


class WorkersLost(UserError):
    """Workers died, or did so again and again; the message says at what."""


def process_map(
    work: Callable[[JobT], ResultT], jobs: Iterable[JobT], num_jobs: int, threads: int = 0
) -> Iterator[ResultT]:
    """work(job) of every job, in order, from `num_jobs` processes, or from this one for 1.

    Args:
      threads: of torch in each process (0: its own choice).

    Raises:
      WorkersLost: a process was killed.
    """
    if num_jobs <= 1:
        yield from map(work, jobs)
        return
    with ProcessPoolExecutor(num_jobs, initializer=_begin, initargs=(threads,)) as pool:
        try:
            yield from pool.map(work, jobs, chunksize=CHUNK)
        except BrokenProcessPool as error:
            raise WorkersLost(
                "a worker process died; if memory ran out, use fewer --num-jobs"
            ) from error


def _begin(threads: int) -> None:
    """A worker that waits for work from a process that was killed would wait for good."""
    if threads:
        import torch  # takes seconds, and work that needs no threads of it may not need it at all

        torch.set_num_threads(threads)
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=end_with, args=(parent,), daemon=True).start()


def end_with(parent: BaseProcess) -> None:
    """Ends this process as soon as `parent` has ended."""
    parent.join()
    os._exit(1)


def run_shares(
    work: Callable[[Any], None],
    shares: Sequence[Any],
    *,
    num_jobs: int = 1,
    dask_scheduler: str | None = None,
    title: str = "shares",
) -> None:
    """Call `work` once for every share; an exception of `work` itself stops everything.

    `dask_scheduler`: address (tcp://...) of a running cluster, or "local" to start one with
    `num_jobs` workers; without it `num_jobs` processes of this machine, or this process alone for
    1.
    """
    with tqdm(total=len(shares), desc=title, unit="share", disable=len(shares) < 2) as bar:
        if dask_scheduler:
            _run_on_dask(work, shares, num_jobs, dask_scheduler, bar)
        elif num_jobs <= 1 or len(shares) == 1:
            for share in shares:
                work(share)
                bar.update()
        else:
            _run_on_pool(work, list(shares), num_jobs, bar)


def _run_on_pool(work: Callable[[Any], None], shares: list, num_jobs: int, bar: tqdm) -> None:
    context = multiprocessing.get_context(
        "spawn"
    )  # a forked copy of a process with threads may hang
    losses = 0
    while shares:
        try:
            with ProcessPoolExecutor(
                num_jobs, mp_context=context, initializer=_begin, initargs=(0,)
            ) as pool:
                waiting = {pool.submit(work, share): share for share in shares}
                for future in as_completed(waiting):
                    future.result()
                    shares.remove(waiting[future])
                    losses = 0
                    bar.update()
        except BrokenProcessPool as error:
            losses += 1
            if losses >= MAX_LOSSES:
                raise WorkersLost(
                    f"{losses} times in a row a worker process died (out of memory?); unfinished:"
                    f" {shares[:3]}"
                ) from error
            tqdm.write(
                f"a worker process died; its share is done again ({len(shares)} shares left)"
            )


def _run_on_dask(
    work: Callable[[Any], None], shares: Sequence, num_jobs: int, address: str, bar: tqdm
) -> None:
    try:
        from dask.distributed import Client, LocalCluster, as_completed
    except ImportError as error:
        raise ImportError(
            "--dask-scheduler needs dask: pip install 'captionstew[cluster]'"
        ) from error
    with _cluster(address, num_jobs, LocalCluster) as cluster, Client(cluster) as client:
        # Dask itself gives the shares of a lost worker to another one; retries cover the ones it
        # half did.
        futures = [client.submit(work, share, pure=False, retries=MAX_LOSSES) for share in shares]
        for future in as_completed(futures):
            future.result()
            bar.update()


class _cluster:
    """The address of a running cluster, or a local one that ends with the block."""

    def __init__(self, address: str, num_jobs: int, local: type) -> None:
        self.address = address
        self.started = None
        if address == "local":
            self.started = local(
                n_workers=max(1, num_jobs), threads_per_worker=1, dashboard_address=None
            )

    def __enter__(self):
        return self.started or self.address

    def __exit__(self, *exception) -> None:
        if self.started is not None:
            self.started.close()
