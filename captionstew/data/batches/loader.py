"""Loading processes: they read a sampler's batches ahead and end with their parent.

One that dies, or is silent for too long, ends the program with one line. Where shared memory is too
small for the batches that are read ahead (containers have 64 MB), they travel through pipes.
"""

import logging
import os
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from captionstew.data.batches.dataset import Batch
from captionstew.data.batches.sampling import Clips, EpochBatches
from captionstew.data.features.store import FeatureStore
from captionstew.data.manifests.index import IndexedCuts
from captionstew.distributed import world_size
from captionstew.errors import NO_SHARED_MEMORY, UserError, lost_worker

SHARED_MEMORY = "/dev/shm"  # where torch keeps the tensors of loading processes, on Linux
PADDING = 1.25  # of batches, at most about that much longer than their clips
REAP_SECONDS = 0.2  # how long it takes until a dead process is known to be dead
SILENCE_SECONDS = 1800.0  # how long a batch is waited for
PARENT_CHECK_SECONDS = 2.0  # how long a loading process may outlive its parent


class BatchMaker(Protocol):
    """A data set of batches: maps an epoch and the rows that a sampler's `cuts` read to a batch."""

    @property
    def store(self) -> FeatureStore | None: ...

    @property
    def bytes_per_second(self) -> int:
        """The most that a second of audio takes in a batch."""

    def __getitem__(self, item: tuple[int, Any], /) -> Batch: ...


class _EpochSampler(Sampler):
    """Sends the epoch along with each batch's positions: workers that live on do not see what the
    main process sets.
    """

    def __init__(self, batches: EpochBatches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return ((self.batches.epoch, positions) for positions in self.batches.positions())


class _ReadingDataset(Dataset):
    """Reads a batch's rows of the manifest in the worker: in the main process they would hold up
    every worker.
    """

    def __init__(self, dataset: BatchMaker, cuts: Clips) -> None:
        self.dataset = dataset
        self.cuts = cuts

    def __getitem__(self, item: tuple[int, list[int]]) -> Batch:
        epoch, positions = item
        return self.dataset[epoch, self.cuts.read(positions)]


class LoaderDied(UserError):
    """A loading process died or does not answer; the message says which, and what to do."""


class Loader(DataLoader):
    """A DataLoader of whole items (no collation) that says in one line when a worker is lost.

    It starts its workers with SIGTERM held back: until `_heed_parent_only` one would end of it.
    """

    def __init__(self, dataset: Dataset, num_workers: int, item_bytes: float, **options: Any):
        """`item_bytes`: the most that an item takes, to know whether shared memory is enough."""
        ahead = num_workers * (options.get("prefetch_factor") or 2) * item_bytes * world_size()
        self.through_pipes = num_workers > 0 and _shared_memory() < ahead
        if self.through_pipes:
            logging.info(
                "%s has %.0f MB free, batches ahead may take %.0f: they go through pipes instead",
                SHARED_MEMORY,
                _shared_memory() / 1e6,
                ahead / 1e6,
            )
        super().__init__(
            dataset,
            batch_size=None,
            collate_fn=_without_shared_memory if self.through_pipes else _as_it_is,
            num_workers=num_workers,
            worker_init_fn=_heed_parent_only,
            timeout=SILENCE_SECONDS if num_workers else 0,
            generator=torch.Generator(),
            **options,
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            items = super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self._guarded(items)

    def _guarded(self, items: _BaseDataLoaderIter) -> Iterator[Any]:
        try:
            yield from map(_as_tensors, items) if self.through_pipes else items
        except (RuntimeError, OSError, EOFError) as error:
            if reason := _why_lost(error, items):
                raise LoaderDied(reason) from error
            raise


def _why_lost(error: Exception, items: _BaseDataLoaderIter) -> str:
    """What happened to a loading process; empty if they are all well and the error is another."""
    if "DataLoader timed out" in str(error):
        return (
            f"no batch came for {SILENCE_SECONDS:.0f} s: the loading processes live but are silent"
            " (a network disk that hangs?)"
        )
    try:
        ends = _exit_codes(getattr(items, "_workers", ()))
    except RuntimeError as latest:  # torch raises it when the signal of the death comes
        return lost_worker(latest)
    if -signal.SIGBUS in ends:
        return NO_SHARED_MEMORY
    if end := next(filter(None, ends), 0):
        how = f"killed by {signal.Signals(-end).name}" if end < 0 else f"exit status {end}"
        return f"a loading process died ({how}); if memory ran out, use fewer --num-workers"
    return lost_worker(error)


def _exit_codes(workers: Sequence[BaseProcess]) -> list[int]:
    """0 for those that live."""
    for worker in workers:
        worker.join(REAP_SECONDS)
    return [worker.exitcode or 0 for worker in workers]


def _shared_memory() -> float:
    """Free bytes; without limit where the system has another place for it."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return float("inf")


def _without_shared_memory(item: Any) -> Any:
    """Tensors as arrays, which are sent by value."""
    if isinstance(item, dict):
        return {name: _without_shared_memory(value) for name, value in item.items()}
    if isinstance(item, tuple):
        return tuple(map(_without_shared_memory, item))
    return _Array(item.numpy()) if isinstance(item, Tensor) else item


def _as_tensors(item: Any) -> Any:
    if isinstance(item, dict):
        return {name: _as_tensors(value) for name, value in item.items()}
    if isinstance(item, tuple):
        return tuple(map(_as_tensors, item))
    return torch.from_numpy(item.values) if isinstance(item, _Array) else item


class _Array:
    """What was a tensor."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values


def make_loader(
    batches: EpochBatches,
    dataset: BatchMaker,
    num_workers: int = 2,
    prefetch_factor: int = 4,
) -> Loader:
    """A loader over `batches`; each `for` loop over it goes through the epoch that `batches` is set
    to.

    The batches are the same for every `num_workers`. PyTorch's global generator is left alone (a
    loader without a generator of its own draws from it), so a resumed run draws the same dropout.
    """
    if dataset.store is not None and isinstance(batches.cuts, IndexedCuts):
        dataset.store.require_cuts(batches.cuts)
    rows = _ReadingDataset(dataset, batches.cuts)
    size = PADDING * batches.settings.max_duration * dataset.bytes_per_second
    return read_ahead(rows, _EpochSampler(batches), num_workers, size, prefetch_factor)


def read_ahead(
    dataset: Dataset,
    items: Iterable,
    num_workers: int,
    item_bytes: float,
    prefetch_factor: int = 4,
) -> Loader:
    """The data set's answers to `items`, in their order, made ahead in loading processes.

    These live on from one `for` loop to the next. `item_bytes`: the most that an answer takes.
    """
    return Loader(
        dataset,
        num_workers,
        item_bytes,
        sampler=items,
        prefetch_factor=prefetch_factor if num_workers else None,
        persistent_workers=num_workers > 0,
    )


def _heed_parent_only(_: int) -> None:
    """SIGTERM to a whole process group asks the training to save and end, for which it needs its
    workers.

    So a worker ends on the SIGTERM of its parent alone, or when its parent is gone: nobody empties
    its queue then, and a worker that waits for that would stay for good.
    """
    if hasattr(signal, "sigtimedwait"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        asked = signal.sigtimedwait({signal.SIGTERM}, PARENT_CHECK_SECONDS)
        if asked is not None and asked.si_pid == parent:
            break
    os._exit(0)


def _as_it_is(batch: Any) -> Any:
    return batch
