#!/usr/bin/env python3
"""Scores the probes that the last train.py left in an experiment folder on the test cuts.

    ./decode.py --exp-dir exp/probe/contrastive --system contrastive

Writes <exp-dir>/results/probe_<task>-test.json for every task (probe_<task>-test-attention.json after attention
pooling), and probe_average-test.json over tasks of accuracy. Every clip of the test list counts; one whose audio cannot
be read is wrong.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captionstew.data.cuts import open_cuts
from captionstew.evaluation.metrics import bootstrap_interval_of_mean
from captionstew.evaluation.probe_files import find_probes
from captionstew.evaluation.probe_scoring import mean_and_deviation, score_probe
from captionstew.evaluation.probing import ProbeTask, broken_clips, num_missing, task_clips
from captionstew.evaluation.representations import ATTENTION, Representations, load_system
from captionstew.evaluation.results import write_result
from captionstew.models.probe import Probe
from captionstew.training.checkpoint import CheckpointError, load_checkpoint
from captionstew.training.distributed import pick_device
from captionstew.training.flags import flag, parse_flags, run_main

NAMED_CLIPS = 5  # of those that could not be read; the rest is counted


@dataclass(frozen=True)
class Flags:
    exp_dir: Path = flag(Path("exp"), "folder of the probes; results go below it")
    tasks: str = flag("", "comma-separated names of trained tasks (default: those of the last training)")
    split: str = flag("test", "which of a task's splits to score", choices=("test", "valid"))
    manifest: Path | None = flag(None, "cuts to score (default: those of --split in the probe's --manifest-dir)")
    system: str = flag("", "name in the report (default: the experiment folder's)")
    num_workers: int = flag(2, "data-loading processes")
    device: str = flag("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    systems: dict[str, Any] = {}
    by_pooling: dict[str, list[dict]] = defaultdict(list)
    for path in find_probes(flags.exp_dir, flags.tasks):
        scored = score(path, systems, flags)
        if scored["correct"] is not None:
            by_pooling[scored["pooling"]].append(scored)
    for pooling, tasks in by_pooling.items():
        if len(tasks) > 1:
            write_average(tasks, pooling, flags)


def score(path: Path, systems: dict[str, Any], flags: Flags) -> dict[str, Any]:
    """Writes a task's result; returns what the average over tasks needs."""
    content = load_checkpoint(path)
    task, options, probe = ProbeTask(**content["task"]), content["flags"], Probe.from_dict(content["probe"])
    name = options["embeddings"] or options["encoder"]
    device = pick_device(flags.device, 0)
    if name not in systems:
        systems[name] = load_system(options["encoder"], options["embeddings"], device)
    if systems[name].description["sha256"] != content["encoder"]["sha256"]:
        raise CheckpointError(f"{path}: the encoder {name} has changed since its probe was trained")
    representations = Representations(
        systems[name], options["pooling"], options["cache"], Path(options["cache_dir"]), options["max_duration"],
        flags.num_workers,
    )  # fmt: skip
    manifest = flags.manifest or task.manifest(Path(options["manifest_dir"]), flags.split)
    loaded = representations.load(task_clips(open_cuts(manifest), task), task, content["classes"])
    broken = [*broken_clips(manifest, task), *loaded.failed]
    for clip in broken[:NAMED_CLIPS]:
        print(f"{manifest}: {clip.cut_id} counts as wrong: {clip.reason}")
    result = score_probe(
        probe, task, content["classes"], content["trained_classes"], loaded, broken, device, flags.exp_dir
    )
    common = {
        "split": manifest.stem.removeprefix("cuts_"),
        "variant": "attention" if content["pooling"] == ATTENTION else "",
        "system": flags.system or flags.exp_dir.name,
        "encoder": systems[name].description,
        "frozen_parameters": representations.num_parameters,
    }
    num_clips = len(loaded.kept.ids) + len(broken)
    settings = {
        "metric": task.metric,
        "pooling": content["pooling"],
        "learning_rate": probe.learning_rate,
        "grid": options["learning_rates"],
        "seeds": probe.num_seeds,
        "num_train": content["num_train"],
        "num_unreadable": content["num_unreadable"],
        "num_broken": len(broken),
        "num_missing": num_missing(manifest),
        "windows": f"first {task.max_seconds:g} s" if task.max_seconds else "whole clip",
        **result.settings,
    }
    write_result(
        flags.exp_dir, task=f"probe_{task.name}", metrics=result.metrics, num_clips=num_clips, settings=settings,
        trained_parameters=probe.num_parameters, checkpoint=str(path), **common,
    )  # fmt: skip
    if broken:
        print(f"{task.name}: {len(broken)} of {num_clips} clips cannot be heard and count as wrong")
    shared = {"common": common, "pooling": content["pooling"], "trained": probe.num_parameters}
    return shared | {"task": task.name, "correct": result.correct}


def write_average(tasks: list[dict[str, Any]], pooling: str, flags: Flags) -> None:
    """Mean accuracy over tasks; its parameters are those of all heads together."""
    correct = [task["correct"] for task in tasks]  # (seeds, N) each
    by_seed = np.mean([one.mean(1) for one in correct], axis=0)
    interval = bootstrap_interval_of_mean([one.mean(0) for one in correct])
    write_result(
        flags.exp_dir,
        task="probe_average",
        metrics=mean_and_deviation("accuracy", by_seed) | {"accuracy_interval": interval},
        num_clips=sum(one.shape[1] for one in correct),
        settings={"metric": "accuracy", "pooling": pooling, "tasks": sorted(task["task"] for task in tasks)},
        trained_parameters=sum(task["trained"] for task in tasks),
        **tasks[-1]["common"],
    )


if __name__ == "__main__":
    run_main(main)
