"""Epochs in which rare classes come as often as common ones.

weights = inverse_frequency_weights(read_labels(cuts))
batches = EpochBatches(cuts, max_duration=640, draw=WeightedDraw(weights, num_clips=200_000))
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from captionstew.data.manifests.labels import LabelTable


def inverse_frequency_weights(table: "LabelTable") -> np.ndarray:
    """(N,) weight of each clip: the sum over its labels of 1 / (number of clips with that label),
    as in icefall.

    So all classes together have the same weight, and a clip without labels has none.
    """
    per_label = 1.0 / np.maximum(table.class_counts, 1)[table.indices]
    totals = np.concatenate([[0.0], np.cumsum(per_label)])
    return totals[table.starts[1:]] - totals[table.starts[:-1]]


@dataclass(frozen=True)
class WeightedDraw:
    """What an epoch is made of: `num_clips` of N clips, each in proportion to its weight.

    A clip is expected num_clips * weight / sum(weights) times in an epoch and comes that often,
    rounded up or down (systematic sampling, Madow 1949): with equal weights and num_clips = N,
    every clip once.
    """

    weights: np.ndarray  # (N,) not negative
    num_clips: int

    def __post_init__(self) -> None:
        if self.num_clips < 1 or not np.isfinite(self.weights).all() or (self.weights < 0).any():
            raise ValueError(
                f"impossible draw of {self.num_clips} clips: weights must be finite and not"
                " negative"
            )
        if not self.weights.any():
            raise ValueError("all clips have the weight 0: there is nothing to draw")

    @property
    def shares(self) -> np.ndarray:
        """(N,) share of each clip in an epoch, of sum 1"""
        return self.weights / self.weights.sum()

    def positions(self, generator: np.random.Generator) -> np.ndarray:
        """(num_clips,) int64 positions in random order"""
        order = generator.permutation(len(self.weights))
        bounds = np.cumsum(self.shares[order])
        points = (generator.random() + np.arange(self.num_clips)) / self.num_clips
        # Rounding may leave the last bound below the last point.
        drawn = order[np.minimum(np.searchsorted(bounds, points, side="right"), len(order) - 1)]
        generator.shuffle(drawn)
        return drawn

    def describe(self) -> str:
        """Changes with the number of clips and any weight: batches of another draw cannot be
        continued.
        """
        return f"{self.num_clips} by {hashlib.sha256(self.weights.tobytes()).hexdigest()[:16]}"
