"""Bootstrap intervals (95 %, percentiles) over clips, groups of clips and means."""

from collections.abc import Callable, Sequence

import numpy as np


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], float] = np.mean,
    seed: int = 0,
    rounds: int = 1000,
) -> tuple[float, float]:
    """95 % percentile interval of a statistic of per-clip values (N, ...), clips drawn with
    replacement.
    """
    generator = np.random.default_rng(seed)
    drawn = [
        statistic(values[generator.integers(0, len(values), len(values))]) for _ in range(rounds)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_interval_of_groups(
    values: np.ndarray, groups: np.ndarray, seed: int = 0, rounds: int = 1000
) -> tuple[float, float]:
    """95 % percentile interval of the mean of values (N,) that belong together by groups (N,).

    Whole groups are drawn with replacement: five captions of one clip are not five independent
    clips.
    """
    _, group = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(group, weights=values), np.bincount(group)
    generator = np.random.default_rng(seed)
    drawn = [
        sums[picked].sum() / counts[picked].sum()
        for picked in (generator.integers(0, len(sums), len(sums)) for _ in range(rounds))
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_interval_of_mean(
    groups: Sequence[np.ndarray], seed: int = 0, rounds: int = 1000
) -> tuple[float, float]:
    """95 % interval of the mean of several tasks' means; clips are drawn with replacement within
    each task.
    """
    generator = np.random.default_rng(seed)
    drawn = [
        np.mean(
            [values[generator.integers(0, len(values), len(values))].mean() for values in groups]
        )
        for _ in range(rounds)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
