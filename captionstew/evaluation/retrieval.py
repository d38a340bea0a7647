"""Text-to-audio and audio-to-text retrieval with a two-tower model, and zero-shot
classification.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from captionstew.data.tokenizer import Tokenizer, warn_of_cut
from captionstew.distributed import gather_objects
from captionstew.evaluation.metrics.bootstrap import (
    bootstrap_interval,
    bootstrap_interval_of_groups,
)
from captionstew.evaluation.metrics.retrieval import (
    RECALL_AT,
    chance_metrics,
    relevance,
    retrieval_metrics,
    retrieval_ranks,
)
from captionstew.models.contrastive import ContrastiveModel

TEXT_BATCH = 256  # captions embedded at a time


@dataclass
class EmbeddedClips:
    """Unit vectors of clips and of all their captions."""

    audio: np.ndarray  # (clips, E)
    text: np.ndarray  # (captions, E)
    caption_clips: list[int]  # clip of each caption
    captions: list[str]
    labels: list[str | None]  # class of each clip, where it has one
    sources: list[str]  # corpus of each clip
    cut_ids: list[str]
    failed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def similarity(self) -> np.ndarray:
        """(clips, captions) cosines, in float64 so that batching does not create or hide ties."""
        return self.audio.astype(np.float64) @ self.text.astype(np.float64).T

    def labelled_subsets(self) -> dict[str, "EmbeddedClips"]:
        """Clips with a class label, by corpus."""
        subsets = {}
        for source in sorted({source for source, label in zip(self.sources, self.labels) if label}):
            rows = [
                row
                for row, label in enumerate(self.labels)
                if label and self.sources[row] == source
            ]
            subsets[source] = replace(
                self,
                audio=self.audio[rows],
                labels=[self.labels[row] for row in rows],
                sources=[source] * len(rows),
                cut_ids=[self.cut_ids[row] for row in rows],
            )
        return subsets


@torch.inference_mode()
def embed_clips(
    model: ContrastiveModel,
    tokenizer: Tokenizer,
    batches: Iterable[dict[str, Any]],
    device: torch.device,
    max_tokens: int,
) -> EmbeddedClips:
    """Embeds every clip and all its captions; of several processes each passes its share, and all
    get the whole.
    """
    audio: list[np.ndarray] = []
    captions: list[list[str]] = []
    labels: list[str | None] = []
    sources: list[str] = []
    cut_ids: list[str] = []
    failed: list[tuple[str, str]] = []
    for batch in batches:
        failed.extend(batch.get("failed", ()))
        if not batch["cut_ids"]:
            continue
        vectors = model.embed_audio(
            batch["features"].to(device), batch["feature_lengths"].to(device)
        )
        audio.append(vectors.float().cpu().numpy())
        captions.extend(batch["all_captions"])
        labels.extend(batch["label"])
        sources.extend(custom["sources"][0] for custom in batch["custom"])
        cut_ids.extend(batch["cut_ids"])
    shares = gather_objects((audio, captions, labels, sources, cut_ids, failed))
    audio, captions, labels, sources, cut_ids, failed = (
        list(itertools.chain(*parts)) for parts in zip(*shares)
    )
    # In an order that depends on the clips alone: bootstrap and permutations must not change with
    # batches or processes.
    order = sorted(range(len(cut_ids)), key=cut_ids.__getitem__)
    captions = [captions[i] for i in order]
    flat = list(itertools.chain(*captions))
    return EmbeddedClips(
        audio=np.concatenate(audio)[order],
        text=embed_texts(model, tokenizer, flat, device, max_tokens),
        caption_clips=[clip for clip, texts in enumerate(captions) for _ in texts],
        captions=flat,
        labels=[labels[i] for i in order],
        sources=[sources[i] for i in order],
        cut_ids=[cut_ids[i] for i in order],
        failed=failed,
    )


@torch.inference_mode()
def embed_texts(
    model: ContrastiveModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    device: torch.device,
    max_tokens: int,
) -> np.ndarray:
    """Texts -> unit vectors (texts, E)."""
    warn_of_cut(tokenizer, texts, max_tokens)
    vectors = []
    for start in range(0, len(texts), TEXT_BATCH):
        ids, lengths = tokenizer.encode(texts[start : start + TEXT_BATCH], max_tokens)
        vectors.append(model.embed_text(ids.to(device), lengths.to(device)).float().cpu().numpy())
    return np.concatenate(vectors)


def retrieval_recalls(clips: EmbeddedClips, duplicate_captions: str) -> dict[str, float]:
    """Recalls in both directions, without intervals: for validation while training."""
    relevant = relevance(
        clips.caption_clips, clips.captions if duplicate_captions == "match" else None
    )
    return retrieval_metrics(retrieval_ranks(clips.similarity, relevant))


def retrieval_report(clips: EmbeddedClips, duplicate_captions: str, seed: int) -> dict[str, Any]:
    """`ranking_report` of embedded clips.

    Args:
      duplicate_captions: strict: only the caption's own clip is right; match: so is any clip with
          the same caption.
    """
    relevant = relevance(
        clips.caption_clips, clips.captions if duplicate_captions == "match" else None
    )
    return ranking_report(clips.similarity, relevant, clips.caption_clips, seed)


def ranking_report(
    similarity: np.ndarray, relevant: np.ndarray, caption_clips: Sequence[int], seed: int
) -> dict[str, Any]:
    """(clips, captions) similarities and right answers -> everything that a result file says about
    retrieval.

    R@1, R@5, R@10, mAP@10 and median rank in both directions; of the first four 95 % bootstrap
    intervals over clips (`_interval`) and the values of permuted pairs (`_chance`).

    Args:
      caption_clips: for each caption, the index of its clip.
    """
    ranks = retrieval_ranks(similarity, relevant)
    report: dict[str, Any] = retrieval_metrics(ranks)
    chance = chance_metrics(similarity, relevant, seed=seed)
    for name, best, precision, groups in (
        (
            "text_to_audio",
            ranks.text_to_audio,
            ranks.text_to_audio_map10,
            np.asarray(caption_clips),
        ),
        (
            "audio_to_text",
            ranks.audio_to_text,
            ranks.audio_to_text_map10,
            np.arange(len(similarity)),
        ),
    ):
        per_query = {f"{name}_r{k}": best < k for k in RECALL_AT} | {f"{name}_map10": precision}
        for key, values in per_query.items():
            report[f"{key}_interval"] = bootstrap_interval_of_groups(values, groups, seed=seed)
            report[f"{key}_chance"] = chance[key]
    return report


def zero_shot_accuracy(
    clips: EmbeddedClips,
    model: ContrastiveModel,
    tokenizer: Tokenizer,
    device: torch.device,
    max_tokens: int,
    template: str,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy of choosing the class whose sentence `template.format(label)` is nearest; every clip
    needs a label.
    """
    labels = [label for label in clips.labels if label is not None]
    classes = sorted(set(labels))
    sentences = [template.format(label.replace("_", " ")) for label in classes]
    text = embed_texts(model, tokenizer, sentences, device, max_tokens)
    scores = clips.audio @ text.T
    truth = np.array([classes.index(label) for label in labels])
    correct = scores.argmax(1) == truth
    return {
        "accuracy": float(correct.mean()),
        "accuracy_interval": bootstrap_interval(correct, seed=seed),
        "majority_class_share": float(np.bincount(truth).max() / len(truth)),
        "num_classes": len(classes),
    }
