#!/usr/bin/env python3
"""Linear probes on a frozen encoder's clip vectors.

    ./train.py --encoder exp/contrastive/pretrained.pt --tasks esc10,ravdess:emotion --manifest-dir data/mine \\
        --exp-dir exp/probe/contrastive
    ./decode.py --exp-dir exp/probe/contrastive

A task is a row of tasks.json, or <source>[:<field>] for a folder with a metadata.csv. Heads for every learning rate and
seed are trained together on vectors that are computed once; validation chooses epoch and rate, no test clip is
heard here. Controls: --encoder logmel, --encoder random:<preset or checkpoint>.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from captionstew.data.cuts import open_cuts
from captionstew.evaluation.probing import (
    MIN_TEST_CLIPS,
    class_names,
    clip_vectors,
    labelled_sources,
    parse_tasks,
    select_cuts,
    targets,
)
from captionstew.models.frozen import load_encoder
from captionstew.models.probe import ProbeSettings, train_probe
from captionstew.training.checkpoint import save_checkpoint
from captionstew.training.distributed import pick_device
from captionstew.training.flags import flag, flags_to_dict, parse_flags, run_main


@dataclass(frozen=True)
class Flags:
    exp_dir: Path = flag(Path("exp"), "probes are written to <exp-dir>/probe-<task>.pt")
    encoder: str = flag("", "checkpoint of an encoder, logmel, or random:<preset or checkpoint>[:seed]")
    tasks: str = flag(
        "all", "all (every labelled source), or comma-separated rows of --task-table and <source>[:<field>]"
    )
    task_table: Path = flag(Path(__file__).with_name("tasks.json"), "JSON list of tasks")
    manifest_dir: Path = flag(Path("data"), "folder with cuts_train.jsonl and cuts_valid.jsonl")
    cache_dir: Path = flag(Path("exp/embeddings"), "where clip vectors are kept")
    pooling: str = flag("mean", "clip vector from frames", choices=("mean", "mean_std"))
    learning_rates: str = flag("0.0001,0.0003,0.001,0.003,0.01", "grid of Adam's rates")
    num_seeds: int = flag(5, "heads per rate, seeds 0, 1, ...")
    max_epochs: int = flag(200, "epochs at most")
    patience: int = flag(20, "stop a head after this many epochs without a better validation metric")
    batch_size: int = flag(128, "clips per step")
    standardise: bool = flag(True, "scale every channel to mean 0 and deviation 1 of the training clips")
    max_duration: float = flag(100.0, "seconds of audio per batch while encoding")
    num_workers: int = flag(2, "data-loading processes")
    device: str = flag("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))

    def check(self) -> None:
        if not self.encoder:
            raise ValueError("--encoder is needed: a checkpoint, logmel or random:<preset or checkpoint>")
        self.settings()

    def settings(self) -> ProbeSettings:
        return ProbeSettings(
            learning_rates=tuple(float(rate) for rate in self.learning_rates.split(",")),
            seeds=tuple(range(self.num_seeds)),
            max_epochs=self.max_epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            standardise=self.standardise,
        )


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    flags.exp_dir.mkdir(parents=True, exist_ok=True)
    encoder = load_encoder(flags.encoder, pick_device(flags.device, 0))
    splits = [open_cuts(flags.manifest_dir / f"cuts_{split}.jsonl") for split in ("train", "valid")]
    if flags.tasks == "all":
        tasks = labelled_sources(open_cuts(flags.manifest_dir / "cuts_test.jsonl"))
        if not tasks:
            print(f"{flags.manifest_dir}: no source has a label of two or more classes on {MIN_TEST_CLIPS} test clips")
    else:
        tasks = parse_tasks(flags.tasks, flags.task_table)
    for task in tasks:
        train, valid = (select_cuts(cuts, task) for cuts in splits)
        classes = class_names(train, task)
        pairs = [
            (
                clip_vectors(encoder, cuts, flags.pooling, flags.cache_dir, flags.max_duration, flags.num_workers),
                targets(cuts, task, classes),
            )
            for cuts in (train, valid)
        ]
        probe = train_probe(*pairs, len(classes), task.loss, task.score, flags.settings())
        path = flags.exp_dir / f"probe-{task.name}.pt"
        content = {"probe": probe.to_dict(), "classes": classes, "task": asdict(task), "flags": flags_to_dict(flags)}
        save_checkpoint(path, content | {"encoder": encoder.description, "num_train": len(train)})
        mean = sum(probe.valid_metric) / len(probe.valid_metric)
        print(f"{task.name}: {len(train)} + {len(valid)} clips, rate {probe.learning_rate:g}, validation {mean:.3f}")


if __name__ == "__main__":
    run_main(main)
