"""Ranking, tagging and classification metrics, and intervals. Shares lie in [0, 1] unless a name says otherwise.

Captions are scored in `caption_metrics`, detection in `psds`, AIR-Bench replies in `airbench`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class RetrievalRanks:
    """Rank (from 0) of the first right answer to each query, and 1/precision terms for mAP@10."""

    text_to_audio: np.ndarray  # (captions,)
    audio_to_text: np.ndarray  # (clips,)
    text_to_audio_map10: np.ndarray  # (captions,) average precision at 10 of each query
    audio_to_text_map10: np.ndarray  # (clips,)


def relevance(caption_clips: Sequence[int], captions: Sequence[str] | None = None) -> np.ndarray:
    """Right answers as a (clips, captions) bool matrix.

    Args:
      caption_clips: for each caption, the index of its clip.
      captions: if given (`--duplicate-captions match`), a caption is right for every clip that has a caption with the
        same words; otherwise (`strict`, the literature's rule) only for its own clip.
    """
    clips = np.asarray(caption_clips)
    own = np.arange(clips.max() + 1)[:, None] == clips[None, :]
    if captions is None:
        return own
    _, words = np.unique([" ".join(text.lower().split()) for text in captions], return_inverse=True)
    has_words = np.zeros((len(own), words.max() + 1), dtype=bool)
    has_words[clips, words] = True
    return has_words[:, words]


def retrieval_ranks(similarity: np.ndarray, relevant: np.ndarray) -> RetrievalRanks:
    """(clips, captions) similarities and right answers -> ranks in both directions.

    A clip with several captions is found if any of them is; every caption is a query of its own. Equal similarities
    are broken against us: a wrong answer that ties with the right one stands before it.

    Raises:
      ValueError: a similarity is NaN or infinite, or shapes differ.
    """
    if similarity.shape != relevant.shape:
        raise ValueError(f"similarities {similarity.shape} and relevance {relevant.shape} differ in shape")
    if not np.isfinite(similarity).all():
        raise ValueError("similarities hold NaN or infinite values: an embedding is broken")
    audio_ranks, audio_map = _ranks(similarity, relevant)
    text_ranks, text_map = _ranks(similarity.T, relevant.T)
    return RetrievalRanks(text_ranks, audio_ranks, text_map, audio_map)


def _ranks(similarity: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(queries, items) -> rank of the best right item (queries,), average precision at 10 (queries,)."""
    best = np.empty(len(similarity), dtype=np.int64)
    precision = np.empty(len(similarity))
    for query, (scores, right) in enumerate(zip(similarity, relevant)):
        wrong = np.sort(scores[~right])
        own = np.sort(scores[right])[::-1]
        ranks = len(wrong) - np.searchsorted(wrong, own, side="left") + np.arange(len(own))
        best[query] = ranks[0]
        found = ranks[ranks < 10]
        precision[query] = (np.arange(1, len(found) + 1) / (found + 1)).sum() / len(own)
    return best, precision


def recall_at_k(ranks: np.ndarray, k: int) -> float:
    """Share of queries whose right answer is among the first k."""
    return float((ranks < k).mean())


def retrieval_metrics(ranks: RetrievalRanks) -> dict[str, float]:
    """R@1, R@5, R@10, mAP@10 and median rank (from 1) in both directions."""
    metrics = {}
    for name, best, precision in (
        ("text_to_audio", ranks.text_to_audio, ranks.text_to_audio_map10),
        ("audio_to_text", ranks.audio_to_text, ranks.audio_to_text_map10),
    ):
        metrics |= {f"{name}_r{k}": recall_at_k(best, k) for k in RECALL_AT}
        metrics[f"{name}_map10"] = float(precision.mean())
        metrics[f"{name}_median_rank"] = float(np.floor(np.median(best)) + 1)
    return metrics


def chance_metrics(similarity: np.ndarray, relevant: np.ndarray, seed: int, rounds: int = 20) -> dict[str, float]:
    """`retrieval_metrics` of pairs permuted at random, mean over the rounds.

    That is what this model's similarities give when they know nothing of the pairing.
    """
    generator = np.random.default_rng(seed)
    drawn = [
        retrieval_metrics(retrieval_ranks(similarity[generator.permutation(len(similarity))], relevant))
        for _ in range(rounds)
    ]
    return {name: float(np.mean([metrics[name] for metrics in drawn])) for name in drawn[0]}


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """(N, C) scores, (N,) class indices -> share of clips whose highest score is the label (first of equal ones).

    Raises:
      ValueError: no clip, or a score is not finite.
    """
    return float(_correct(scores, labels).mean())


def mean_class_recall(scores: np.ndarray, labels: np.ndarray) -> float:
    """(N, C) scores, (N,) class indices -> mean share found over the classes that occur; raises as `accuracy`."""
    correct = _correct(scores, labels)
    return float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))


def _correct(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if len(scores) != len(labels) or not len(scores):
        raise ValueError(f"{len(scores)} clips have scores and {len(labels)} have labels: nothing to compare")
    _check_finite(scores)
    return scores.argmax(1) == labels


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> tuple[float, int]:
    """(N, C) scores, (N, C) 0/1 -> macro average precision over classes with a positive, and how many those are.

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
    """(N, C) scores, (N, C) 0/1 -> average precision of each class (C,), NaN where no clip is positive.

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
    """(N, C) scores, (N, C) 0/1 -> area under the ROC of each class (C,), NaN where all clips are alike."""
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


def bootstrap_interval(
    values: np.ndarray, statistic: Callable[[np.ndarray], float] = np.mean, seed: int = 0, rounds: int = 1000
) -> tuple[float, float]:
    """95 % percentile interval of a statistic of per-clip values (N, ...), clips drawn with replacement."""
    generator = np.random.default_rng(seed)
    drawn = [statistic(values[generator.integers(0, len(values), len(values))]) for _ in range(rounds)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_interval_of_groups(
    values: np.ndarray, groups: np.ndarray, seed: int = 0, rounds: int = 1000
) -> tuple[float, float]:
    """95 % percentile interval of the mean of values (N,) that belong together by groups (N,).

    Whole groups are drawn with replacement: five captions of one clip are not five independent clips.
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


def bootstrap_interval_of_mean(groups: Sequence[np.ndarray], seed: int = 0, rounds: int = 1000) -> tuple[float, float]:
    """95 % interval of the mean of several tasks' means; clips are drawn with replacement within each task."""
    generator = np.random.default_rng(seed)
    drawn = [
        np.mean([values[generator.integers(0, len(values), len(values))].mean() for values in groups])
        for _ in range(rounds)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
