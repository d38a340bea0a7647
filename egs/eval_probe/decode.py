#!/usr/bin/env python3
"""Scores the probes that the last train.py left in an experiment folder on the test cuts.

    ./decode.py --exp-dir exp/probe/contrastive --system contrastive

Writes <exp-dir>/results/probe_<task>-test.json for every task (probe_<task>-test-attention.json
after attention pooling), and probe_average-test.json over tasks of accuracy. Every clip of the test
list counts; one whose audio cannot be read is wrong.

    ./decode.py --exp-dir exp/probe/contrastive --also exp/probe/contrastive-swapped

joins the test clips of two trainings of the same probes, as when validation and test were exchanged
(local/swap_held_out.py): twice the clips, each tested by a probe that never met it.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from captionstew.distributed import pick_device
from captionstew.errors import run_main
from captionstew.evaluation.metrics.bootstrap import bootstrap_interval_of_mean
from captionstew.evaluation.probing.decoding import Decoded, Decoder, joined
from captionstew.evaluation.probing.files import find_probes
from captionstew.evaluation.probing.scoring import mean_and_deviation
from captionstew.evaluation.results import write_result
from captionstew.evaluation.trained_clips import TrainedClipsFlags, summed
from captionstew.flags import flag, parse_flags

NAMED_CLIPS = 5  # of those that could not be read; the rest is counted
SHARED = ("encoder", "split", "variant", "frozen_parameters")  # by the results of one system


@dataclass(frozen=True)
class Flags(TrainedClipsFlags):
    exp_dir: Path = flag(Path("exp"), "folder of the probes; results go below it")
    tasks: str = flag(
        "", "comma-separated names of trained tasks (default: those of the last training)"
    )
    also: Path | None = flag(
        None, "folder of the same probes trained for other test clips, which join these"
    )
    split: str = flag("test", "which of a task's splits to score", choices=("test", "valid"))
    manifest: Path | None = flag(
        None, "cuts to score (default: those of --split in the probe's --manifest-dir)"
    )
    system: str = flag("", "name in the report (default: the experiment folder's)")
    num_workers: int = flag(2, "data-loading processes")
    device: str = flag("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    system = flags.system or flags.exp_dir.name
    decoder = Decoder(
        flags.split, flags.manifest, flags.num_workers, pick_device(flags.device, 0), flags.exp_dir,
        flags.allow_trained_clips,
    )  # fmt: skip
    by_pooling: dict[str, list[Decoded]] = defaultdict(list)
    for path in find_probes(flags.exp_dir, flags.tasks):
        decoded = decoder.decode(path)
        if flags.also is not None:
            decoded = joined(decoded, decoder.decode(flags.also / path.name))
        write_result(
            flags.exp_dir, task=f"probe_{decoded.task.name}", system=system, **decoded.result
        )
        report_broken(decoded)
        if decoded.score.correct is not None:
            by_pooling[decoded.pooling].append(decoded)
    for pooling, tasks in by_pooling.items():
        if len(tasks) > 1:
            write_average(tasks, pooling, system, flags)


def report_broken(decoded: Decoded) -> None:
    """Says which clips count as wrong because they cannot be heard."""
    if decoded.broken:
        count = decoded.result["num_clips"]
        print(
            f"{decoded.manifest}: {len(decoded.broken)} of {count} clips cannot be heard and count"
            " as wrong"
        )
    for clip in decoded.broken[:NAMED_CLIPS]:
        print(f"  {clip.cut_id}: {clip.reason}")


def write_average(tasks: list[Decoded], pooling: str, system: str, flags: Flags) -> None:
    """Mean accuracy over tasks; its trained parameters are those of all heads together."""
    correct = [task.score.correct for task in tasks if task.score.correct is not None]  # (seeds, N)
    by_seed = np.mean([one.mean(1) for one in correct], axis=0)
    interval = bootstrap_interval_of_mean([one.mean(0) for one in correct])
    write_result(
        flags.exp_dir,
        task="probe_average",
        system=system,
        metrics=mean_and_deviation("accuracy", by_seed) | {"accuracy_interval": interval},
        num_clips=sum(one.shape[1] for one in correct),
        trained_clips=summed(task.result["trained_clips"] for task in tasks),
        settings={
            "metric": "accuracy",
            "pooling": pooling,
            "tasks": sorted(task.task.name for task in tasks),
        },
        trained_parameters=sum(task.result["trained_parameters"] for task in tasks),
        **{name: value for name, value in tasks[-1].result.items() if name in SHARED},
    )


if __name__ == "__main__":
    run_main(main)
