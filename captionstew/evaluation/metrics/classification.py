"""Ranking, tagging and classification metrics, and intervals. Shares lie in [0, 1] unless a name
says otherwise.

Captions are scored in `caption_metrics`, detection in `psds`, AIR-Bench replies in `airbench`.
"""

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """(N, C) scores, (N,) class indices -> share of clips whose highest score is the label (first
    of equal ones).

    Raises:
      ValueError: no clip, or a score is not finite.
    """
    return float(_correct(scores, labels).mean())


def mean_class_recall(scores: np.ndarray, labels: np.ndarray) -> float:
    """(N, C) scores, (N,) class indices -> mean share found over the classes that occur; raises as
    `accuracy`.
    """
    correct = _correct(scores, labels)
    return float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))


def _correct(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if len(scores) != len(labels) or not len(scores):
        raise ValueError(
            f"{len(scores)} clips have scores and {len(labels)} have labels: nothing to compare"
        )
    _check_finite(scores)
    return scores.argmax(1) == labels


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> tuple[float, int]:
    """(N, C) scores, (N, C) 0/1 -> macro average precision over classes with a positive, and how
    many those are.

    Rank by logits: a sigmoid in float32 turns high scores into ties.

    Raises:
      ValueError: no class has a positive, or a score is not finite.
    """
    values = class_average_precisions(scores, targets)
    present = ~np.isnan(values)
    if not present.any():
        raise ValueError("no class has a positive clip: nothing to average")
    return float(values[present].mean()), int(present.sum())


def class_average_precisions(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N, C) scores, (N, C) 0/1 -> average precision of each class (C,), NaN where no clip is
    positive.

    Tied clips enter together, so their order does not matter.
    """
    _check_finite(scores)
    return np.array(
        [
            average_precision_score(truth, column) if truth.any() else np.nan
            for column, truth in zip(scores.T, targets.T)
        ]
    )


def class_roc_aucs(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N, C) scores, (N, C) 0/1 -> area under the ROC of each class (C,), NaN where all clips are
    alike.
    """
    _check_finite(scores)
    return np.array(
        [
            roc_auc_score(truth, column) if truth.any() and not truth.all() else np.nan
            for column, truth in zip(scores.T, targets.T)
        ]
    )


def _check_finite(scores: np.ndarray) -> None:
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinite values")
