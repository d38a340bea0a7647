"""Metrics of many heads at once, for validation while probes train, and of bootstrap draws.

Average precision is scikit-learn's definition, in one sort for all heads and classes: a call of
scikit-learn per head and class would take longer than the training. H heads, N clips, C classes.
"""

import numpy as np
import torch
from torch import Tensor

from captionstew.evaluation.probing.fit import HeadMetric

MAX_SORTED = 1 << 25  # scores sorted at a time


class AccuracyPerHead:
    """Share of clips whose highest score is the label."""

    def __init__(self) -> None:
        self._right = torch.zeros((), dtype=torch.int64)  # (H,) from the first update on
        self._count = 0

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """(H, n, C), (n,)"""
        self._right = (scores.argmax(-1) == targets).sum(1) + self._right
        self._count += len(targets)

    def values(self) -> np.ndarray:
        """-> (H,)"""
        return self._right.cpu().numpy() / self._count


class AveragePrecisionPerHead:
    """Mean over the classes that have a positive."""

    def __init__(self) -> None:
        self._scores: list[Tensor] = []
        self._targets: list[Tensor] = []

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """(H, n, C), (n, C) zeros and ones"""
        self._scores.append(scores)
        self._targets.append(targets)

    def values(self) -> np.ndarray:
        """-> (H,)

        Raises:
          ValueError: no class has a positive.
        """
        targets = torch.cat(self._targets).T.contiguous()  # (C, N)
        if not targets.any():
            raise ValueError("no validation clip has a label: there is nothing to choose by")
        scores = torch.cat(self._scores, dim=1).transpose(1, 2)  # (H, C, N)
        at_once = max(1, MAX_SORTED // targets.numel())
        means = [
            average_precision(part.contiguous(), targets).nanmean(-1)
            for part in scores.split(at_once)
        ]
        return torch.cat(means).cpu().numpy()


class NoMetric:
    """The same for all heads: the validation loss alone decides."""

    def update(self, scores: Tensor, targets: Tensor) -> None:
        self._count = len(scores)

    def values(self) -> np.ndarray:
        """-> (H,)"""
        return np.zeros(self._count)


HEAD_METRICS: dict[str, type[HeadMetric]] = {
    "accuracy": AccuracyPerHead,
    "map": AveragePrecisionPerHead,
    "psds1": NoMetric,
}


class RankedScores:
    """Scores (..., C, N) sorted once, from which average precisions under many weightings of the
    clips follow.
    """

    def __init__(self, scores: Tensor, targets: Tensor) -> None:
        """scores (C, N) or (..., C, N), targets zeros and ones, broadcast over the leading axes."""
        ranked, self.order = scores.sort(dim=-1, descending=True)
        self.hits = targets.expand_as(scores).gather(-1, self.order).bool()
        self.positives = self.hits.nonzero(as_tuple=True)
        # Clips of equal score enter together: precision counts where a group of equal scores ends.
        places = torch.arange(scores.shape[-1], device=scores.device).expand_as(scores).clone()
        places[..., :-1][ranked[..., 1:] == ranked[..., :-1]] = scores.shape[-1]
        ends = places.flip(-1).cummin(-1).values.flip(-1)
        self.ends = (*self.positives[:-1], ends[self.positives])

    def average_precision(self, weights: Tensor | None = None) -> Tensor:
        """-> (..., C); NaN for a class without positives. `weights` (N,): how often each clip
        counts.

        AP = mean over the positives of the precision among the clips that score at least as high.
        """
        counts = torch.ones_like(self.order) if weights is None else weights[self.order]
        found = (counts * self.hits).cumsum(-1)[self.ends].double()
        seen = counts.cumsum(-1)[self.ends].clamp(min=1)
        gained = counts[self.positives].double()
        nothing = torch.zeros(self.order.shape[:-1], dtype=torch.float64, device=self.order.device)
        classes = self.positives[:-1]
        total = nothing.index_put(classes, gained, accumulate=True)
        return nothing.index_put(classes, gained * found / seen, accumulate=True) / total


def average_precision(scores: Tensor, targets: Tensor) -> Tensor:
    """(..., C, N), targets of zeros and ones -> (..., C), NaN without positives; scikit-learn's,
    ties included.
    """
    return RankedScores(scores, targets).average_precision()


def map_interval(
    scores: np.ndarray, targets: np.ndarray, seed: int = 0, rounds: int = 200
) -> tuple[float, float]:
    """(S, N, C), (N, C) -> 95 % interval of the mean average precision, averaged over S seeds: 1.96
    standard deviations of a bootstrap over clips to either side, within [0, 1].

    Not the bootstrap's percentiles: copies of one positive clip stand next to each other, which
    raises the average precision of rare classes in every draw. A class that a draw misses does not
    count in it.
    """
    generator = np.random.default_rng(seed)
    draws = torch.from_numpy(
        generator.multinomial(len(targets), np.full(len(targets), 1 / len(targets)), size=rounds)
    )
    present = targets.any(axis=0)
    truth = torch.from_numpy(targets[:, present].T.copy())
    value, drawn = 0.0, torch.zeros(rounds, dtype=torch.float64)
    for one in scores:
        ranked = RankedScores(torch.from_numpy(one[:, present].T.copy()), truth)
        value += float(ranked.average_precision().mean()) / len(scores)
        means = torch.stack([ranked.average_precision(weights).nanmean() for weights in draws])
        drawn += means / len(scores)
    reach = 1.96 * float(np.nanstd(drawn.numpy()))
    return max(0.0, value - reach), min(1.0, value + reach)
