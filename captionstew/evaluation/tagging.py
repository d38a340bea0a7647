"""Scores of a tagger on labelled clips: mean average precision, with an interval, and class by
class.

N clips, C classes.
"""

import csv
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captionstew.data.manifests.labels import clip_labels, multi_hot
from captionstew.distributed import gather_objects
from captionstew.evaluation.metrics.classification import (
    class_average_precisions,
    mean_average_precision,
)
from captionstew.evaluation.probing.head_metrics import map_interval
from captionstew.files import atomic_write
from zipformer import AudioTagger


@dataclass
class TaggedClips:
    """Logits and truth of N clips, in the order of their ids."""

    classes: list[str]
    scores: np.ndarray  # (N, C)
    targets: np.ndarray  # (N, C) zeros and ones
    cut_ids: list[str]


@torch.inference_mode()
def tag_clips(
    model: AudioTagger,
    batches: Iterable[dict[str, Any]],
    classes: list[str],
    label_field: str,
    device: torch.device,
) -> TaggedClips:
    """Scores every clip; of several processes each passes its share, and all get the whole.

    Raises:
      ValueError: there is no clip.
    """
    places = {name: place for place, name in enumerate(classes)}
    scores, targets, cut_ids = [], [], []
    for batch in batches:
        if not batch["cut_ids"]:
            continue
        logits = model(batch["features"].to(device), batch["feature_lengths"].to(device))
        scores.append(logits.float().cpu().numpy())
        labels = [clip_labels(custom, label_field) for custom in batch["custom"]]
        targets.append(multi_hot(labels, places).numpy())
        cut_ids.extend(batch["cut_ids"])
    shares = gather_objects((scores, targets, cut_ids))
    scores, targets, cut_ids = (list(itertools.chain(*parts)) for parts in zip(*shares))
    if not cut_ids:
        raise ValueError("no labelled clip could be read: nothing to score")
    order = sorted(range(len(cut_ids)), key=cut_ids.__getitem__)
    ids = [cut_ids[row] for row in order]
    return TaggedClips(classes, np.concatenate(scores)[order], np.concatenate(targets)[order], ids)


def tagging_metrics(clips: TaggedClips) -> dict[str, float]:
    """mAP over the classes that occur, and the loss per clip (summed over classes): for validation
    while training.
    """
    log_odds, truth = clips.scores.astype(np.float64), clips.targets
    losses = np.logaddexp(0.0, log_odds) - truth * log_odds  # binary cross entropy of a logit
    precision, _ = mean_average_precision(clips.scores, truth)
    return {"map": precision, "loss": float(losses.sum(1).mean())}


def tagging_report(clips: TaggedClips, seed: int, rounds: int = 1000) -> dict[str, Any]:
    """mAP with its 95 % interval, and that of scores drawn at random: the mean share of
    positives.
    """
    precision, num_classes = mean_average_precision(clips.scores, clips.targets)
    positives = clips.targets.sum(0)
    return {
        "map": precision,
        "map_interval": map_interval(clips.scores[None], clips.targets, seed, rounds),
        "map_chance": float(positives[positives > 0].mean() / len(clips.targets)),
        "num_classes": num_classes,
    }


def write_class_table(path: Path, clips: TaggedClips) -> None:
    """CSV with average precision and number of positive clips of each class; no precision where
    there is none.
    """
    values = class_average_precisions(clips.scores, clips.targets)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "label", "positives", "average_precision"])
        for place, (name, value) in enumerate(zip(clips.classes, values)):
            shown = "" if np.isnan(value) else f"{value:.6f}"
            writer.writerow([place, name, int(clips.targets[:, place].sum()), shown])
