#!/usr/bin/env python3
"""Linear probes on a frozen encoder's representations (paper Tables 3a and 9).

    ./train.py --encoder exp/contrastive/pretrained.pt --tasks esc10,ravdess:emotion \\
        --manifest-dir data/mine \\
        --exp-dir exp/probe/contrastive
    ./decode.py --exp-dir exp/probe/contrastive

A task is a row of tasks.json, or <source>[:<field>] for a folder with a metadata.csv. Heads for
every learning rate and seed are trained together on representations that are computed once;
validation chooses epoch and rate, no test clip is heard here. Controls: --encoder logmel, --encoder
random:<preset or checkpoint>.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from captionstew.checkpoint import load_checkpoint, save_checkpoint
from captionstew.data.manifests.cuts import open_cuts
from captionstew.distributed import pick_device
from captionstew.errors import run_main
from captionstew.evaluation.probing.files import probe_name, record_probes
from captionstew.evaluation.probing.fit import ProbeSettings, train_probe
from captionstew.evaluation.probing.head_metrics import HEAD_METRICS
from captionstew.evaluation.probing.progress import Progress
from captionstew.evaluation.probing.representations import CACHES, Representations, load_system
from captionstew.evaluation.probing.tasks import (
    ProbeTask,
    chosen_tasks,
    class_names,
    names_in,
    task_clips,
)
from captionstew.flags import flag, flags_to_dict, free_flag, parse_flags
from captionstew.hashing import hash_of
from captionstew.locks import one_writer


@dataclass(frozen=True)
class Flags:
    exp_dir: Path = free_flag(Path("exp"), "probes are written to <exp-dir>/probe-<task>.pt")
    encoder: str = flag(
        "", "checkpoint, folder or name of an encoder: see captionstew.models.encoders.load"
    )
    embeddings: Path | None = flag(
        None, "clip vectors computed elsewhere, in the place of --encoder"
    )
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
    pooling: str = flag(
        "mean", "clip vector from frames", ("mean", "mean_std", "attention"), only_with="encoder"
    )
    attention_heads: int = flag(
        4, "heads of attention pooling", only_with=("encoder", "pooling=attention")
    )
    cache: str = flag(
        "auto",
        "what is kept on disk; auto: vectors, or frames where they are needed",
        choices=CACHES,
        only_with="encoder",
    )
    cache_dir: Path = flag(
        Path("exp/embeddings"), "where it is kept", only_with=("encoder", "cache=auto|clip|frames")
    )
    learning_rates: str = flag("0.0001,0.0003,0.001,0.003,0.01", "grid of Adam's rates")
    num_seeds: int = flag(5, "heads per rate, seeds 0, 1, ...")
    max_epochs: int = flag(200, "epochs at most")
    max_steps: int = flag(0, "stop a head after this many steps (0: no limit)")
    patience: int = flag(
        20, "stop a head after this many epochs without a better validation metric"
    )
    valid_every: int = flag(1, "validate every this many epochs")
    batch_size: int = flag(128, "clips per step")
    standardise: bool = flag(
        True, "scale every channel to mean 0 and deviation 1 of the training clips"
    )
    resume: bool = free_flag(
        False, "keep the probes that are there, and go on with the one that was interrupted"
    )
    max_duration: float = flag(100.0, "seconds of audio per batch of the encoder")
    num_workers: int = free_flag(2, "data-loading processes (0: load in this process)")
    device: str = free_flag("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))

    def check(self) -> None:
        if bool(self.encoder) == bool(self.embeddings):
            raise ValueError(
                "give either --encoder (a checkpoint, logmel, random:<preset>, ...) or --embeddings"
                " FILE"
            )
        if self.pooling == "attention" and self.cache == "clip":
            raise ValueError("--pooling attention needs frames: --cache frames, none or auto")
        self.settings()

    def settings(self) -> ProbeSettings:
        return ProbeSettings(
            learning_rates=tuple(float(rate) for rate in self.learning_rates.split(",")),
            seeds=tuple(range(self.num_seeds)),
            max_epochs=self.max_epochs,
            patience=self.patience,
            valid_every=self.valid_every,
            batch_size=self.batch_size,
            standardise=self.standardise,
            max_steps=self.max_steps,
        )

    def identity(self, task: ProbeTask, encoder: dict[str, Any], manifests: list[str]) -> str:
        """Equal for trainings with the same result; `manifests`: hashes of their content."""
        decisive = {
            item.name: str(getattr(self, item.name))
            for item in fields(self)
            if not item.metadata["may_change"] and item.name not in ("tasks", "task_table")
        }
        return hash_of([decisive, asdict(task), encoder["sha256"], manifests])


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    flags.exp_dir.mkdir(parents=True, exist_ok=True)
    tasks = chosen_tasks(flags.tasks, flags.manifest_dir, flags.task_table)
    with one_writer(flags.exp_dir):
        record_probes(flags.exp_dir, [])
        train_probes(tasks, flags)


def train_probes(tasks: list[ProbeTask], flags: Flags) -> None:
    """Trains heads on the frozen encoder."""
    system = load_system(flags.encoder, flags.embeddings, pick_device(flags.device, 0))
    representations = Representations(
        system, flags.pooling, flags.cache, flags.cache_dir, flags.max_duration, flags.num_workers
    )
    for task in tasks:
        representations.pooling_of(
            task
        )  # a task that cannot be had ends the program before hours of others
    names: list[str] = []
    for task in tasks:
        train_task(task, representations, flags)
        names.append(probe_name(task.name, representations.pooling_of(task)))
        record_probes(flags.exp_dir, names)


def train_task(task: ProbeTask, representations: Representations, flags: Flags) -> None:
    """Writes the task's probe file, unless --resume finds it."""
    path = flags.exp_dir / probe_name(task.name, representations.pooling_of(task))
    found = [
        task_clips(open_cuts(task.manifest(flags.manifest_dir, split)), task)
        for split in ("train", "valid")
    ]
    manifests = [clips.cuts.sha256 for clips in found]
    identity = flags.identity(task, representations.system.description, manifests)
    if flags.resume and path.is_file() and load_checkpoint(path).get("identity") == identity:
        print(f"{task.name}: {path} is there")
        return
    progress = Progress(path.with_suffix(".progress"), identity)
    if not flags.resume:
        progress.remove()
    classes = class_names(found[0], task, task.manifest(flags.manifest_dir, "train").parent)
    train, valid = (representations.load(clips, task, classes) for clips in found)
    device = representations.device
    head = representations.head(task, len(classes), flags.attention_heads)
    probe = train_probe(
        head,
        train.clips,
        valid.clips,
        task.loss_per_head,
        HEAD_METRICS[task.metric],
        flags.settings(),
        device,
        progress,
    )
    trained = {name for value in train.kept.values for name in names_in(value)}
    content = {
        "identity": identity,
        "probe": probe.to_dict(),
        "classes": classes,
        "trained_classes": [name for name in classes if name in trained],
        "task": asdict(task),
        "flags": flags_to_dict(flags),
        "encoder": representations.system.description,
        "pooling": representations.pooling_of(task),
        "num_train": len(train.clips),
        "num_unreadable": {"train": len(train.failed), "valid": len(valid.failed)},
    }
    save_checkpoint(path, content)
    progress.remove()
    chosen = f"loss {sum(probe.valid_loss) / probe.num_seeds:.4f}"
    if task.metric != "psds1":
        chosen = f"{task.metric} {sum(probe.valid_metric) / probe.num_seeds:.3f}"
    print(
        f"{task.name}: {len(train.clips)} + {len(valid.clips)} clips, rate {probe.learning_rate:g},"
        f" validation {chosen}"
    )


if __name__ == "__main__":
    run_main(main)
