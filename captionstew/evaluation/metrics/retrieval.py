"""Recall at k and mAP at 10 of text-to-audio and audio-to-text retrieval, and what chance gives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
      captions: if given (`--duplicate-captions match`), a caption is right for every clip that has
        a caption with the same words; otherwise (`strict`, the literature's rule) only for its own
        clip.
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

    A clip with several captions is found if any of them is; every caption is a query of its own.
    Equal similarities are broken against us: a wrong answer that ties with the right one stands
    before it.

    Raises:
      ValueError: a similarity is NaN or infinite, or shapes differ.
    """
    if similarity.shape != relevant.shape:
        raise ValueError(
            f"similarities {similarity.shape} and relevance {relevant.shape} differ in shape"
        )
    if not np.isfinite(similarity).all():
        raise ValueError("similarities hold NaN or infinite values: an embedding is broken")
    audio_ranks, audio_map = _ranks(similarity, relevant)
    text_ranks, text_map = _ranks(similarity.T, relevant.T)
    return RetrievalRanks(text_ranks, audio_ranks, text_map, audio_map)


def _ranks(similarity: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(queries, items) -> rank of the best right item (queries,), average precision at 10
    (queries,).
    """
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
    metrics: dict[str, float] = {}
    for name, best, precision in (
        ("text_to_audio", ranks.text_to_audio, ranks.text_to_audio_map10),
        ("audio_to_text", ranks.audio_to_text, ranks.audio_to_text_map10),
    ):
        metrics |= {f"{name}_r{k}": recall_at_k(best, k) for k in RECALL_AT}
        metrics[f"{name}_map10"] = float(precision.mean())
        metrics[f"{name}_median_rank"] = float(np.floor(np.median(best)) + 1)
    return metrics


def chance_metrics(
    similarity: np.ndarray, relevant: np.ndarray, seed: int, rounds: int = 20
) -> dict[str, float]:
    """`retrieval_metrics` of pairs permuted at random, mean over the rounds.

    That is what this model's similarities give when they know nothing of the pairing.
    """
    generator = np.random.default_rng(seed)
    drawn = [
        retrieval_metrics(
            retrieval_ranks(similarity[generator.permutation(len(similarity))], relevant)
        )
        for _ in range(rounds)
    ]
    return {name: float(np.mean([metrics[name] for metrics in drawn])) for name in drawn[0]}
