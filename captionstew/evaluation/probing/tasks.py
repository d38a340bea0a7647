"""Probing tasks as data, and the clips of a task: which there are, what is asked of them, which are
broken.

A task is a row of `egs/eval_probe/tasks.json` or, for any labelled manifest, `<source>[:<field>]`.
N clips, C classes.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captionstew.data.manifests.cuts import open_cuts
from captionstew.data.manifests.index import IndexedCuts
from captionstew.evaluation.probing.detection import Event
from captionstew.evaluation.probing.fit import (
    Loss,
    binary_cross_entropy_per_head,
    cross_entropy_per_head,
    frame_binary_cross_entropy_per_head,
)
from captionstew.files import parse_json

HELD_OUT = ("valid", "test")
MIN_TEST_CLIPS = 50  # `all` leaves out sources with fewer: their accuracy says next to nothing
SPLITS = {"train": "train", "valid": "valid", "test": "test"}
UNKNOWN_CLASS = -1  # target of a clip whose class no head knows: never right

# metric -> what a head sees, its loss, several labels per clip?
KINDS: dict[str, tuple[str, str, bool]] = {
    "accuracy": ("clip", "cross_entropy", False),
    "map": ("clip", "binary_cross_entropy", True),
    "psds1": ("frames", "binary_cross_entropy", True),
}
METRIC_OF_FIELD = {
    "labels": "map",
    "events": "psds1",
}  # of `<source>:<field>`; accuracy for every other field


@dataclass(frozen=True)
class ProbeTask:
    """A classification or detection task on cuts.

    Attributes:
      name: used in result files.
      source: corpus whose cuts belong to the task; empty for all cuts of the manifest.
      field: entry of the cut's `custom` with the target: a class; a list of classes; events,
          [onset, offset, class].
      metric: accuracy, map or psds1. It implies `head` (clip or frames), `loss` and `multi_label`,
        which a row of the table states too, for its readers.
      max_seconds: only the start of longer clips is heard (0: all of it).
      splits: which cuts_<name>.jsonl train, validate and test.
      classes: file beside the manifests with the list of classes; empty: the classes of the
          training cuts.
      num_classes: of the full release, for the reader.
    """

    name: str
    source: str = ""
    field: str = "label"
    metric: str = "accuracy"
    head: str = ""
    loss: str = ""
    multi_label: bool | None = None
    max_seconds: float = 0.0
    splits: dict[str, str] = dataclasses.field(default_factory=SPLITS.copy)
    classes: str = ""
    num_classes: int = 0

    def __post_init__(self) -> None:
        if self.metric not in KINDS:
            raise ValueError(
                f"task {self.name}: metric {self.metric!r} is none of {', '.join(KINDS)}"
            )
        for name, value in zip(("head", "loss", "multi_label"), KINDS[self.metric]):
            if getattr(self, name) not in ("", None, value):
                raise ValueError(
                    f"task {self.name}: {name} {getattr(self, name)!r} does not go with"
                    f" {self.metric}"
                )
            object.__setattr__(self, name, value)
        if set(self.splits) != set(SPLITS):
            raise ValueError(
                f"task {self.name}: splits must name {', '.join(SPLITS)}, not"
                f" {', '.join(self.splits)}"
            )

    @property
    def is_detection(self) -> bool:
        return self.head == "frames"

    @property
    def loss_per_head(self) -> Loss:
        if self.is_detection:
            return frame_binary_cross_entropy_per_head
        return binary_cross_entropy_per_head if self.multi_label else cross_entropy_per_head

    def manifest(self, folder: Path, split: str) -> Path:
        """Cuts of train, valid or test; `folder` holds them, or a folder of the task's name that
        does.
        """
        own = folder / self.name
        return (own if own.is_dir() else folder) / f"cuts_{self.splits[split]}.jsonl"


def read_task_table(path: Path) -> dict[str, ProbeTask]:
    """Tasks by name.

    Raises:
      ValueError: not a JSON list of tasks; says which row.
    """
    try:
        rows = parse_json(path.read_text(encoding="utf-8"))
        tasks = [ProbeTask(**row) for row in rows]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a list of tasks ({error})") from error
    return {task.name: task for task in tasks}


def parse_tasks(text: str, table: dict[str, ProbeTask]) -> list[ProbeTask]:
    """Comma-separated tasks: names in the table, or `<source>[:<field>]` for any labelled manifest.

    Raises:
      ValueError: an empty entry.
    """
    tasks = []
    for entry in text.split(","):
        source, _, name = entry.strip().partition(":")
        if not source:
            raise ValueError(f"--tasks {text!r}: empty task name")
        tasks.append(table.get(entry.strip()) or source_task(source, name))
    return tasks


def source_task(source: str, field: str = "") -> ProbeTask:
    """The task of a field of a source's labels."""
    field = field or "label"
    name = source if field == "label" else f"{source}_{field}"
    return ProbeTask(name, source, field, METRIC_OF_FIELD.get(field, "accuracy"))


def chosen_tasks(names: str, manifest_dir: Path, table_path: Path) -> list[ProbeTask]:
    """The tasks that `--tasks` names: `all`, or comma-separated rows of the table and
    `<source>[:<field>]`; says so if there is none.
    """
    table = read_task_table(table_path)
    tasks = all_tasks(manifest_dir, table) if names == "all" else parse_tasks(names, table)
    if not tasks:
        print(
            f"{manifest_dir}: no source has a label of two or more classes on {MIN_TEST_CLIPS}"
            " clips, in validation and in test"
        )
    return tasks


def all_tasks(folder: Path, table: dict[str, ProbeTask]) -> list[ProbeTask]:
    """Every task of the table that has its manifests here; else a task for every labelled source
    that is held out.

    A source of a corpus in the table is that task; any other needs a `label` of two or more classes
    on at least MIN_TEST_CLIPS clips of the test, and of validation, which may be exchanged.
    """
    below = [task for task in table.values() if (folder / task.name / "cuts_train.jsonl").is_file()]
    if below:
        return below
    by_source = {task.source: task for task in table.values() if task.source}
    labels: dict[str, dict[str, list[str]]] = defaultdict(lambda: {split: [] for split in HELD_OUT})
    for split in HELD_OUT:
        for cut in open_cuts(folder / f"cuts_{split}.jsonl"):
            custom = cut.supervisions[0].custom
            if custom["sources"][0] in by_source or custom.get("label"):
                labels[custom["sources"][0]][split].append(custom.get("label", ""))
    return [
        by_source.get(source) or source_task(source)
        for source, values in sorted(labels.items())
        if source in by_source
        or all(len(x) >= MIN_TEST_CLIPS and len(set(x)) > 1 for x in values.values())
    ]


@dataclass(frozen=True)
class TaskClips:
    """The clips of a split that have the task's target."""

    cuts: IndexedCuts
    ids: list[str]
    values: list[Any]  # what the cut's `custom` holds under the task's field

    def without(self, failed: Container[str]) -> "TaskClips":
        """All but these cut ids."""
        if not failed:
            return self
        rows = [row for row, cut_id in enumerate(self.ids) if cut_id not in failed]
        return TaskClips(
            self.cuts.select(rows),
            [self.ids[row] for row in rows],
            [self.values[row] for row in rows],
        )


def task_clips(cuts: IndexedCuts, task: ProbeTask) -> TaskClips:
    """Raises ValueError when no clip has the target."""
    rows, ids, values = [], [], []
    for row, cut in enumerate(cuts):
        custom = cut.supervisions[0].custom
        if _belongs(custom, task):
            rows.append(row)
            ids.append(cut.id)
            values.append(custom[task.field])
    if not rows:
        raise ValueError(f"{cuts.path}: no cut of source {task.source!r} has a {task.field!r}")
    return TaskClips(cuts.select(rows), ids, values)


@dataclass(frozen=True)
class BrokenClip:
    """A clip that has the task's target but no audio that can be used."""

    cut_id: str
    reason: str
    value: Any


def broken_clips(manifest: Path, task: ProbeTask) -> list[BrokenClip]:
    """What preparation listed beside cuts_<split>.jsonl in broken_<split>.jsonl; none without that
    file.
    """
    path = manifest.with_name(manifest.name.replace("cuts_", "broken_", 1))
    if path == manifest or not path.is_file():
        return []
    clips = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = parse_json(line)
            clip = BrokenClip(row["cut_id"], row["reason"], row["custom"].get(task.field))
            belongs = _belongs(row["custom"], task)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}: line {number}: {error!r}; prepare the corpus again"
            ) from None
        if belongs:
            clips.append(clip)
    return clips


def num_missing(manifest: Path) -> int:
    """Clips of the list whose video is nowhere to be had (missing_<split>.txt): they do not count,
    but are reported.
    """
    path = manifest.with_name(manifest.name.replace("cuts_", "missing_", 1)).with_suffix(".txt")
    return len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0


def clip_split(manifest: Path) -> dict[str, str]:
    """{"clip_split": "public" | "paper"} of a corpus for which the study's split is not the public
    one (the `--split` of its reader, in report.json beside the manifest), else {}.
    """
    path = manifest.with_name("report.json")
    report = parse_json(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {"clip_split": report["split"]} if "split" in report else {}


def _belongs(custom: dict[str, Any], task: ProbeTask) -> bool:
    is_of_source = not task.source or task.source in custom.get("sources", [])
    return is_of_source and custom.get(task.field) not in (None, "", [])


def class_names(train: TaskClips, task: ProbeTask, folder: Path) -> list[str]:
    """The task's list of classes beside the manifests, or those of the training clips, sorted.

    Raises:
      ValueError: the list is not one of different names, or training clips have other classes.
    """
    present = {name for value in train.values for name in names_in(value)}
    path = folder / task.classes
    if not task.classes or not path.is_file():
        return sorted(present)
    classes = parse_json(path.read_text(encoding="utf-8"))
    if not isinstance(classes, list) or len(set(map(str, classes))) < len(classes):
        raise ValueError(f"{path}: not a list of different class names")
    if extra := present - set(classes):
        raise ValueError(
            f"{path}: lacks the class {min(extra)!r} of {train.cuts.path}; prepare the corpus again"
        )
    return classes


def names_in(value: Any) -> list[str]:
    """The classes that a label, a list of labels or a list of events names."""
    if isinstance(value, (str, int)):
        return [str(value)]
    return [event_of(one)[2] if isinstance(one, (list, dict)) else one for one in value]


def event_of(value: list | dict[str, Any]) -> tuple[float, float, str]:
    """[onset, offset, class], or what a folder's metadata.csv gives -> onset, offset (seconds),
    class
    """
    if isinstance(value, dict):
        return value["onset"], value["offset"], value["label"]
    onset, offset, name = value
    return onset, offset, name


def targets(values: Sequence[Any], task: ProbeTask, classes: Sequence[str]) -> Tensor:
    """-> (N,) class indices, UNKNOWN_CLASS for others; or (N, C) zeros and ones, labels of other
    classes left out.
    """
    index = {name: number for number, name in enumerate(classes)}
    if not task.multi_label:
        return torch.tensor(
            [index.get(str(value), UNKNOWN_CLASS) for value in values], dtype=torch.int64
        )
    rows = torch.zeros(len(values), len(classes))
    for row, value in zip(rows, values):
        row[[index[name] for name in names_in(value) if name in index]] = 1.0
    return rows


def events(values: Sequence[Any], classes: Sequence[str]) -> list[list[Event]]:
    """Per clip onset, offset, class index; events of other classes left out."""
    index = {name: number for number, name in enumerate(classes)}
    found = [[event_of(one) for one in value] for value in values]
    return [
        [(onset, offset, index[name]) for onset, offset, name in clip if name in index]
        for clip in found
    ]


def num_unknown_labels(values: Sequence[Any], classes: Sequence[str]) -> int:
    """Labels of clips that are of no class the heads know."""
    known = set(classes)
    return sum(name not in known for value in values for name in names_in(value))
