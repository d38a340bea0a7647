"""Loading processes: they read a sampler's batches ahead and end with their parent."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from captionstew.data.batches.dataset import Batch
from captionstew.data.batches.sampling import Clips, EpochBatches
from captionstew.data.features.store import FeatureStore
from captionstew.data.manifests.index import IndexedCuts

PARENT_CHECK_SECONDS = 2.0  # how long a loading process may outlive its parent


class BatchMaker(Protocol):
    """A data set of batches: maps an epoch and the rows that a sampler's `cuts` read to a batch."""

    @property
    def store(self) -> FeatureStore | None: ...

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


class _Loader(DataLoader):
    """Starts its workers with SIGTERM held back: until `_heed_parent_only` one would end of it."""

    def __iter__(self) -> _BaseDataLoaderIter:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def make_loader(
    batches: EpochBatches,
    dataset: BatchMaker,
    num_workers: int = 2,
    prefetch_factor: int = 4,
) -> DataLoader:
    """A loader over `batches`; each `for` loop over it goes through the epoch that `batches` is set
    to.

    The batches are the same for every `num_workers`. PyTorch's global generator is left alone (a
    loader without a generator of its own draws from it), so a resumed run draws the same dropout.
    """
    if dataset.store is not None and isinstance(batches.cuts, IndexedCuts):
        dataset.store.require_cuts(batches.cuts)
    rows = _ReadingDataset(dataset, batches.cuts)
    return read_ahead(rows, _EpochSampler(batches), num_workers, prefetch_factor)


def read_ahead(
    dataset: Dataset, items: Iterable, num_workers: int = 2, prefetch_factor: int = 4
) -> DataLoader:
    """The data set's answers to `items`, in their order, made ahead in loading processes.

    These live on from one `for` loop to the next.
    """
    return _Loader(
        dataset,
        sampler=items,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        prefetch_factor=prefetch_factor if num_workers else None,
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),
        worker_init_fn=_heed_parent_only,
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
