"""One resampler for all rates: lhotse's windowed sinc, and for rates with no common divisor the
same sinc in a form of bounded size.
"""

import math
from contextlib import contextmanager
from functools import lru_cache

import numpy as np

# Elements (256 MiB) of lhotse's kernel, which has a filter per phase, each as long as a period.
MAX_KERNEL = 1 << 26
# Of lhotse's sinc: zeros on either side of the middle, and where it cuts off (of half a rate).
ZEROS, ROLLOFF = 6, 0.99
BLOCK = 1 << 20  # products held at a time


def resample(samples: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """(N,) float32 at `source_rate` -> (ceil(N * target_rate / source_rate),) float32 at
    `target_rate`.

    The kernels are cached per pair of rates and process; two threads that meet at an empty cache
    both compute the same kernel.
    """
    divisor = math.gcd(source_rate, target_rate)
    source, target = source_rate // divisor, target_rate // divisor
    if source == target:
        return samples
    if source * target > MAX_KERNEL:
        return _resample_by_phases(samples, source, target)
    import torch
    from lhotse.augmentation import get_or_create_resampler

    with torch.no_grad(), one_thread():
        return get_or_create_resampler(source_rate, target_rate)(torch.from_numpy(samples)).numpy()


@contextmanager
def one_thread():
    """PyTorch on one CPU thread inside the block.

    Convolutions and matrix products of a short clip differ in the last bit with the number of
    threads; samples and features must be the same in a loader's worker, which has one, and in the
    main process.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _resample_by_phases(samples: np.ndarray, source: int, target: int) -> np.ndarray:
    """`resample` for rates without a common divisor: only what is not zero of each filter."""
    filters = _phase_filters(source, target)
    taps = filters.shape[1]
    padded = np.pad(samples, (taps // 2, taps))
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps)
    ticks = np.arange(-(-len(samples) * target // source), dtype=np.int64) * source
    resampled = np.empty(len(ticks), dtype=np.float32)
    size = max(1, BLOCK // taps)
    for start in range(0, len(ticks), size):
        places, phases = np.divmod(ticks[start : start + size], target)
        np.einsum("nt,nt->n", windows[places], filters[phases], out=resampled[start : start + size])
    return resampled


@lru_cache(maxsize=4)
def _phase_filters(source: int, target: int) -> np.ndarray:
    """(target, taps) float32: an output sample lies `phase / target` behind the middle tap."""
    cutoff = ROLLOFF * min(1.0, target / source)  # of half the source's rate
    width = math.ceil(ZEROS / cutoff)
    taps = np.arange(-width, width + 1)
    filters = np.empty((target, len(taps)), dtype=np.float32)
    for phase in range(target):
        time = np.clip((taps - phase / target) * cutoff, -ZEROS, ZEROS)
        filters[phase] = np.sinc(time) * np.cos(time * np.pi / ZEROS / 2) ** 2 * cutoff
    return filters
