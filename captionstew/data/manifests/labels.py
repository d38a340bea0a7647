"""Labels of clips: which classes there are, how often, and targets for multi-label training.

N clips, B clips of a batch, C classes.
"""

import csv
import gzip
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captionstew.data.manifests.index import IndexedCuts
from captionstew.files import parse_json


def _read_rows(path: Path) -> list[dict[str, str]]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, skipinitialspace=True)
        try:
            if "index" not in (reader.fieldnames or ()):
                raise LabelError(f"{path}: column 'index' is missing; it has {reader.fieldnames}")
            return list(reader)
        except csv.Error as error:
            raise LabelError(f"{path}: line {reader.line_num}: no table ({error})") from error


def read_class_list(path: Path) -> list[str]:
    """Class names in their order: a JSON list, or a CSV with `index` and `display_name`
    (AudioSet's) or `label`.

    Raises:
      LabelError: not of this form, an index is skipped or repeated, or two classes have one name.
    """
    if path.suffix == ".json":
        names = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(names, list) or len(set(map(str, names))) != len(names) or not names:
            raise LabelError(f"{path}: a class list is a JSON list of different names")
        return [str(name) for name in names]
    rows = _read_rows(path)
    column = next((name for name in ("display_name", "label") if rows and name in rows[0]), None)
    if column is None:
        raise LabelError(
            f"{path}: a class list has the columns index and display_name (or label), and rows"
        )
    names = {int(row["index"]): row[column] for row in rows}
    if sorted(names) != list(range(len(rows))) or len(set(names.values())) != len(rows):
        raise LabelError(
            f"{path}: every index from 0 to {len(rows) - 1} and every name must occur once"
        )
    return [names[index] for index in range(len(rows))]


class LabelError(ValueError):
    """A class list that is not in its form; the message names the file and what is wrong."""


def clip_labels(custom: dict[str, Any], name: str = "labels") -> list[str]:
    """The labels in an entry of a clip's `custom`, each once: a list, a single one, or none."""
    value = custom.get(name) or []
    return list(dict.fromkeys([value] if isinstance(value, str) else value))


@dataclass(frozen=True)
class LabelTable:
    """Labels of N clips as class indices: clip i has indices[starts[i] : starts[i + 1]].

    Attributes:
      classes: C names.
      starts: (N + 1,) int64.
      indices: (number of labels,) int32.
      unknown: labels that are not among the classes, and how often they occur.
    """

    classes: list[str]
    starts: np.ndarray
    indices: np.ndarray
    unknown: Counter[str] = field(default_factory=Counter)

    @property
    def per_clip(self) -> np.ndarray:
        """(N,) number of labels of each clip"""
        return np.diff(self.starts)

    def select(self, rows: np.ndarray) -> "LabelTable":
        """The labels of the clips at these positions."""
        counts = self.per_clip[rows]
        parts = [self.indices[self.starts[row] : self.starts[row + 1]] for row in rows]
        return LabelTable(
            self.classes,
            np.concatenate([[0], np.cumsum(counts)]),
            np.concatenate(parts),
            self.unknown,
        )

    @property
    def class_counts(self) -> np.ndarray:
        """(C,) number of clips of each class"""
        return np.bincount(self.indices, minlength=len(self.classes))


def read_labels(
    cuts: IndexedCuts, name: str = "labels", classes: Sequence[str] | None = None
) -> LabelTable:
    """The labels of all cuts, from the entry `name` of `custom`; the default classes are those that
    occur, sorted.
    """
    places: dict[str, int] = {label: place for place, label in enumerate(classes or ())}
    unknown: Counter[str] = Counter()
    starts, indices = [0], []
    for position in range(len(cuts)):
        for label in clip_labels(cuts.custom(position), name):
            if label in places or classes is None:
                indices.append(places.setdefault(label, len(places)))
            else:
                unknown[label] += 1
        starts.append(len(indices))
    found = np.array(indices, dtype=np.int32)
    if classes is None:
        classes = sorted(places)
        found = np.argsort(np.argsort(list(places))).astype(np.int32)[found] if places else found
    return LabelTable(list(classes), np.array(starts), found, unknown)


def multi_hot(labels: Sequence[Sequence[str]], classes: dict[str, int]) -> Tensor:
    """Labels of B clips and the place of each class -> (B, C) zeros and ones, float32; unknown
    labels are left out
    """
    targets = torch.zeros(len(labels), len(classes))
    for row, names in zip(targets, labels):
        row[[classes[name] for name in names if name in classes]] = 1.0
    return targets
