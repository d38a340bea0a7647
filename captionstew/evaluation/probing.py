"""What probe training and probe scoring share: tasks as data, targets, cached clip vectors."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captionstew.data.loading import waveform_batches
from captionstew.data.manifest import IndexedCuts
from captionstew.evaluation import metrics
from captionstew.evaluation.embedding_cache import cached_vectors
from captionstew.models.frozen import FrozenEncoder
from captionstew.models.pooling import POOLINGS
from captionstew.models.probe import binary_cross_entropy_per_head, cross_entropy_per_head


@dataclass(frozen=True)
class ProbeTask:
    """A classification task on cuts.

    Attributes:
      name: used in result files.
      source: corpus whose cuts belong to the task; empty for all cuts of the manifest.
      field: entry of the cut's `custom` with the target: a class, or a list of classes for several labels per clip.
      multi_label: binary cross entropy and mean average precision instead of cross entropy and accuracy.
    """

    name: str
    source: str = ""
    field: str = "label"
    multi_label: bool = False

    @property
    def metric(self) -> str:
        return "map" if self.multi_label else "accuracy"

    @property
    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        return binary_cross_entropy_per_head if self.multi_label else cross_entropy_per_head

    def score(self, scores: np.ndarray, targets: np.ndarray) -> float:
        """(N, C) scores, targets -> the task's metric"""
        return (
            metrics.mean_average_precision(scores, targets)[0]
            if self.multi_label
            else metrics.accuracy(scores, targets)
        )


MIN_TEST_CLIPS = 50  # `all` leaves out sources with fewer: their accuracy says next to nothing


def labelled_sources(test: IndexedCuts) -> list[ProbeTask]:
    """A task for every source with a `label` of two or more classes on at least MIN_TEST_CLIPS test clips."""
    labels: dict[str, list[str]] = defaultdict(list)
    for cut in test:
        custom = cut.supervisions[0].custom
        if custom.get("label"):
            labels[custom["sources"][0]].append(custom["label"])
    return [
        ProbeTask(source, source)
        for source, values in sorted(labels.items())
        if len(values) >= MIN_TEST_CLIPS and len(set(values)) > 1
    ]


def parse_tasks(text: str, table: Path) -> list[ProbeTask]:
    """Comma-separated tasks: names in the task table, or `<source>[:<field>]` for any labelled folder.

    Raises:
      ValueError: an empty entry.
    """
    known = {row["name"]: ProbeTask(**row) for row in json.loads(table.read_text(encoding="utf-8"))}
    tasks = []
    for entry in text.split(","):
        source, _, field = entry.strip().partition(":")
        if not source:
            raise ValueError(f"--tasks {text!r}: empty task name")
        name = f"{source}_{field}" if field else source
        tasks.append(known.get(entry.strip()) or ProbeTask(name, source, field or "label"))
    return tasks


def select_cuts(cuts: IndexedCuts, task: ProbeTask) -> IndexedCuts:
    """The cuts of a task that have its label.

    Raises:
      ValueError: there are none.
    """
    rows = []
    for row, cut in enumerate(cuts):
        custom = cut.supervisions[0].custom
        if (not task.source or task.source in custom["sources"]) and custom.get(task.field) not in (None, "", []):
            rows.append(row)
    if not rows:
        raise ValueError(f"{cuts.path}: no cut of source {task.source!r} has a {task.field!r}")
    return cuts.select(np.array(rows))


def class_names(cuts: IndexedCuts, task: ProbeTask) -> list[str]:
    """Classes that occur in the training cuts, sorted."""
    values = (cut.supervisions[0].custom[task.field] for cut in cuts)
    return sorted({name for value in values for name in ([value] if isinstance(value, str) else value)})


def targets(cuts: IndexedCuts, task: ProbeTask, classes: Sequence[str]) -> Tensor:
    """-> (N,) class indices, or (N, C) zeros and ones.

    Raises:
      ValueError: a label that the training cuts do not have.
    """
    index = {name: number for number, name in enumerate(classes)}
    values = [cut.supervisions[0].custom[task.field] for cut in cuts]
    try:
        if not task.multi_label:
            return torch.tensor([index[value] for value in values])
        rows = torch.zeros(len(values), len(classes))
        for row, names in zip(rows, values):
            row[[index[name] for name in names]] = 1.0
        return rows
    except KeyError as error:
        raise ValueError(f"{cuts.path}: class {error} of task {task.name} is not in the training cuts") from None


def clip_vectors(
    encoder: FrozenEncoder, cuts: IndexedCuts, pooling: str, cache: Path, max_duration: float, num_workers: int
) -> Tensor:
    """Pooled frames of every cut, in order (N, D), computed once per encoder, manifest and pooling.

    Raises:
      BadAudio: a clip cannot be read; an evaluation never goes on without it.
    """

    def compute() -> np.ndarray:
        rows: dict[str, np.ndarray] = {}
        batches = waveform_batches(cuts, encoder.sampling_rate, max_duration, num_workers)
        with torch.inference_mode():
            for batch in batches:
                frames, lengths = encoder(
                    batch["waveforms"].to(encoder.device), batch["num_samples"].to(encoder.device)
                )
                vectors = POOLINGS[pooling](frames, lengths).float().cpu().numpy()
                rows.update(zip(batch["cut_ids"], vectors))
        return np.stack([rows[cut.id] for cut in cuts])

    settings = {"encoder": encoder.description["sha256"], "manifest": cuts.sha256, "pooling": pooling}
    return torch.from_numpy(cached_vectors(cache, settings, compute))
