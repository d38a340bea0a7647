#!/usr/bin/env python3
"""The encoder trained together with the classifier, from scratch or from --init-encoder, in the
loop and with the flags of pretraining (paper Table 7).

    ./train_encoder.py --encoder-preset captionstew --tasks cremad --manifest-dir data/cremad \\
        --exp-dir exp/supervised --num-epochs 30 --max-duration 300
    ./decode.py --exp-dir exp/supervised --system supervised

The classes are those of the task; the weights are the running average over the last --avg epochs.
"""

from dataclasses import dataclass
from pathlib import Path

from captionstew.errors import run_main
from captionstew.evaluation.probing.files import record_probes
from captionstew.evaluation.probing.supervised import SupervisedFlags, train_encoders
from captionstew.evaluation.probing.tasks import chosen_tasks
from captionstew.flags import flag, free_flag, parse_flags
from captionstew.training.launch import is_first_process, one_training


@dataclass(frozen=True)
class Flags(SupervisedFlags):
    exp_dir: Path = free_flag(Path("exp"), "models are written to <exp-dir>/probe-<task>.pt")
    tasks: str = flag(
        "all",
        "all (every labelled source), or comma-separated rows of --task-table and"
        " <source>[:<field>]",
    )
    task_table: Path = flag(Path(__file__).with_name("tasks.json"), "JSON list of tasks")
    manifest_dir: Path = free_flag(
        Path("data"),
        "folder with cuts_train.jsonl and cuts_valid.jsonl, or with a folder of these for every"
        " task",
    )


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    flags.exp_dir.mkdir(parents=True, exist_ok=True)
    tasks = chosen_tasks(flags.tasks, flags.manifest_dir, flags.task_table)
    with one_training(flags.exp_dir):
        if is_first_process():
            record_probes(flags.exp_dir, [])
        train_encoders(tasks, flags)


if __name__ == "__main__":
    run_main(main)
