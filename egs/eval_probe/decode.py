#!/usr/bin/env python3
"""Scores the probes of an experiment folder on the test cuts.

    ./decode.py --exp-dir exp/probe/contrastive --system contrastive

Writes <exp-dir>/results/probe_<task>-test.json for every task, and probe_average-test.json over tasks of one metric.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from captionstew.data.cuts import open_cuts
from captionstew.evaluation.metrics import bootstrap_interval, bootstrap_interval_of_mean
from captionstew.evaluation.probing import ProbeTask, clip_vectors, select_cuts, targets
from captionstew.evaluation.results import write_result
from captionstew.models.frozen import load_encoder
from captionstew.models.probe import Probe
from captionstew.training.checkpoint import CheckpointError, load_checkpoint
from captionstew.training.distributed import pick_device
from captionstew.training.flags import flag, parse_flags, run_main


@dataclass(frozen=True)
class Flags:
    exp_dir: Path = flag(Path("exp"), "folder with probe-<task>.pt files")
    manifest: Path | None = flag(None, "test cuts (default: cuts_test.jsonl of the probe's --manifest-dir)")
    system: str = flag("", "name in the report (default: the experiment folder's)")
    num_workers: int = flag(2, "data-loading processes")
    device: str = flag("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    paths = sorted(flags.exp_dir.glob("probe-*.pt"))
    if not paths:
        raise CheckpointError(f"{flags.exp_dir}: no probe-<task>.pt; run train.py first")
    per_clip = {}
    for path in paths:
        content = load_checkpoint(path)
        task = ProbeTask(**content["task"])
        values, common = score(content, task, path, flags)
        if values is not None:
            per_clip[task.name] = values
    if len(per_clip) > 1:
        write_average(per_clip, common, flags)


def score(content: dict, task: ProbeTask, path: Path, flags: Flags) -> tuple[np.ndarray | None, dict]:
    """Writes the task's result; for single labels returns which clips were right (seeds, N)."""
    options = content["flags"]
    encoder = load_encoder(options["encoder"], pick_device(flags.device, 0))
    if encoder.description["sha256"] != content["encoder"]["sha256"]:
        raise CheckpointError(f"{path}: the encoder {options['encoder']} has changed since its probe was trained")
    manifest = flags.manifest or Path(options["manifest_dir"]) / "cuts_test.jsonl"
    cuts = select_cuts(open_cuts(manifest), task)
    vectors = clip_vectors(
        encoder, cuts, options["pooling"], Path(options["cache_dir"]), options["max_duration"], flags.num_workers
    )
    truth = targets(cuts, task, content["classes"]).numpy()
    probe = Probe(**content["probe"])
    scores = probe.scores(vectors).numpy()
    values = np.array([task.score(one, truth) for one in scores])
    correct = None if task.multi_label else scores.argmax(-1) == truth
    common = {
        "split": manifest.stem.removeprefix("cuts_"),
        "system": flags.system or flags.exp_dir.name,
        "encoder": encoder.description,
        "checkpoint": str(path),
    }
    write_result(
        flags.exp_dir,
        task=f"probe_{task.name}",
        metrics={
            task.metric: float(values.mean()),
            f"{task.metric}_deviation": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
            f"{task.metric}_interval": _interval(scores, truth, correct, task.score),
            "chance": None if task.multi_label else float(np.bincount(truth).max() / len(truth)),
        },
        num_clips=len(cuts),
        settings={
            "metric": task.metric,
            "pooling": options["pooling"],
            "learning_rate": probe.learning_rate,
            "grid": options["learning_rates"],
            "seeds": len(values),
            "num_train": content["num_train"],
            "windows": "whole clip",
        },
        trained_parameters=probe.weight[0].numel() + probe.bias[0].numel(),
        frozen_parameters=sum(p.numel() for p in encoder.parameters()),
        **common,
    )
    return correct, common


def _interval(
    scores: np.ndarray, truth: np.ndarray, correct: np.ndarray | None, metric: Callable
) -> tuple[float, float]:
    if correct is not None:
        return bootstrap_interval(correct.mean(0))
    rows = np.arange(len(truth))
    return bootstrap_interval(rows, lambda drawn: float(np.mean([metric(one[drawn], truth[drawn]) for one in scores])))


def write_average(per_clip: dict[str, np.ndarray], common: dict, flags: Flags) -> None:
    values = list(per_clip.values())  # (seeds, N) each
    by_seed = np.mean([one.mean(1) for one in values], axis=0)
    write_result(
        flags.exp_dir,
        task="probe_average",
        metrics={
            "accuracy": float(by_seed.mean()),
            "accuracy_deviation": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else 0.0,
            "accuracy_interval": bootstrap_interval_of_mean([one.mean(0) for one in values]),
        },
        num_clips=sum(one.shape[1] for one in values),
        settings={"metric": "accuracy", "tasks": sorted(per_clip)},
        **common,
    )


if __name__ == "__main__":
    run_main(main)
