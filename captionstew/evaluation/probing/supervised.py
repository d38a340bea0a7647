"""Probing tasks with the encoder trained, from scratch or from a checkpoint (paper Table 7)."""

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captionstew.checkpoint import save_checkpoint, seed_generators, select_model
from captionstew.data.batches.captioned import TrainingBatches, feature_batches
from captionstew.data.features.fbank import FbankConfig
from captionstew.data.manifests.cuts import open_cuts
from captionstew.data.manifests.index import IndexedCuts
from captionstew.data.manifests.trained_clips import ENTRY, copy_trained_clips
from captionstew.distributed import Rank, gather_objects
from captionstew.evaluation.probing.files import probe_name, record_probes
from captionstew.evaluation.probing.head_metrics import HEAD_METRICS
from captionstew.evaluation.probing.tasks import (
    BrokenClip,
    ProbeTask,
    TaskClips,
    class_names,
    targets,
    task_clips,
)
from captionstew.flags import fixed, flag, flags_to_dict
from captionstew.models.classifier import (
    ClipClassifier,
    build_classifier,
    classification_loss,
    load_classifier,
)
from captionstew.models.initialise import initialisation_line, initialise_encoder
from captionstew.models.losses import Losses
from captionstew.training.flags import DataFlags, EncoderFlags, TrainingFlags
from captionstew.training.launch import is_first_process, launch
from captionstew.training.log import start_logging
from captionstew.training.loop import train


@dataclasses.dataclass(frozen=True)
class SupervisedFlags(TrainingFlags, DataFlags, EncoderFlags):
    """Flags of an encoder that is trained with a classifier on top."""

    max_duration: float = flag(100.0, "seconds of audio per batch and process")
    max_caption_tokens: int = fixed(128)  # captions play no part
    average_period: int = flag(
        10, "update the running average of the parameters every this many steps"
    )
    init_encoder: Path | None = flag(None, "checkpoint to start from (default: from scratch)")
    pooling: str = flag("mean", "clip vector from frames", choices=("mean", "attention"))
    attention_heads: int = flag(4, "heads of attention pooling", only_with="pooling=attention")
    avg: int = flag(
        1, "average over this many last epochs, or checkpoints of a run that ends by --max-steps"
    )


class TaskBatches(TrainingBatches):
    """Training and validation batches of the clips that have the task's target.

    A training clip longer than the task's window is heard in a random part of that length.
    """

    def __init__(self, flags: SupervisedFlags, task: ProbeTask, rank: Rank) -> None:
        self._task = task
        self._found: dict[str, TaskClips] = {}
        if task.max_seconds and not flags.augment_max_seconds:
            flags = dataclasses.replace(flags, augment_max_seconds=task.max_seconds)
        self._folder = flags.manifest_dir
        super().__init__(flags, rank.rank, rank.world_size)
        self.classes = class_names(
            self.found("train"), task, task.manifest(self._folder, "train").parent
        )

    def found(self, split: str) -> TaskClips:
        if split not in self._found:
            self._found[split] = task_clips(
                open_cuts(self._task.manifest(self._folder, split)), self._task
            )
        return self._found[split]

    def clips(self, split: str) -> IndexedCuts:
        """The cuts to train (`train`) or validate (`valid`) on."""
        return self.found(split).cuts


class SupervisedTask:
    """Cross entropy of the clips' classes."""

    def __init__(self, flags: SupervisedFlags, task: ProbeTask, data: TaskBatches) -> None:
        self.task = task
        self._frames = frames_heard(task, data.fbank)
        self.config: dict[str, Any] = {
            "task": f"probe_{task.name}",
            "probe": dataclasses.asdict(task),
            "preset": flags.encoder_preset,
            "encoder": flags.encoder_config().to_dict(),
            "init_encoder": str(flags.init_encoder or ""),
            "classes": data.classes,
            "pooling": flags.pooling,
            "attention_heads": flags.attention_heads,
            "fbank": data.fbank.to_dict(),
            "coverage": data.coverage,
        }

    def losses(self, model: nn.Module, batch: dict[str, Any], device: torch.device) -> Losses:
        logits = model(batch["features"].to(device), batch["feature_lengths"].to(device))
        total = classification_loss(logits, self._targets(batch).to(device))
        return Losses(total, {"loss": total}, {})

    def validate(
        self, model: ClipClassifier, batches: Iterable[dict], device: torch.device
    ) -> dict[str, float]:
        scored = scored_batches(model, batches, device, self._frames)
        shares = gather_objects([(scores, self._targets(batch)) for batch, scores in scored])
        metric = HEAD_METRICS[self.task.metric]()
        for scores, truth in (pair for share in shares for pair in share):
            metric.update(scores.unsqueeze(0), truth)
        return {self.task.metric: float(metric.values()[0])}

    def _targets(self, batch: dict[str, Any]) -> Tensor:
        values = [custom[self.task.field] for custom in batch["custom"]]
        return targets(values, self.task, self.config["classes"])


def train_encoders(tasks: Sequence[ProbeTask], flags: SupervisedFlags) -> None:
    """Trains every task in a folder of its own below --exp-dir; the averaged models lie where
    probes would.

    Raises:
      ValueError: a task is detection.
    """
    if detection := [task.name for task in tasks if task.is_detection]:
        raise ValueError(
            f"the encoder is trained with classifiers of clips; {', '.join(detection)} is detection"
        )
    names: list[str] = []
    for task in tasks:
        names.append(probe_name(task.name, flags.pooling))
        output = flags.exp_dir / names[-1]
        own = dataclasses.replace(flags, exp_dir=output.with_suffix(""))
        own.exp_dir.mkdir(parents=True, exist_ok=True)
        launch(
            train_supervised, flags.world_size, flags.master_port, flags.device, own, task, output
        )
        if is_first_process():
            record_probes(flags.exp_dir, names)


def train_supervised(rank: Rank, flags: SupervisedFlags, task: ProbeTask, output: Path) -> None:
    """Trains one task in --exp-dir and writes the averaged model to `output`, on every rank.

    The weights are the running average over the last --avg epochs, or over as many intervals of
    --save-every-n where --max-steps ends the run; no epoch is chosen, so nothing is tuned on test.
    """
    start_logging(flags.exp_dir, rank.rank, rank.world_size)
    seed_generators(flags.seed)
    data = TaskBatches(flags, task, rank)
    supervised = SupervisedTask(flags, task, data)
    model = build_classifier(supervised.config)
    if flags.init_encoder:
        initialise_encoder(model.encoder, flags.init_encoder)
    logging.info(
        initialisation_line(
            model, {"encoder": str(flags.init_encoder)} if flags.init_encoder else {}
        )
    )
    train(model, supervised, data, flags, rank)
    if rank.is_main:
        ended = (flags.exp_dir / f"epoch-{flags.num_epochs}.pt").is_file()
        step = 0 if ended else flags.max_steps
        weights, _ = select_model(
            flags.exp_dir, flags.num_epochs, step, flags.avg, use_averaged_model=True
        )
        content = {"model": weights, "config": supervised.config, "flags": flags_to_dict(flags)}
        save_checkpoint(output, content | {"num_train": len(data.clips("train"))})
        copy_trained_clips(flags.exp_dir, supervised.config[ENTRY], output.parent)


@torch.inference_mode()
def supervised_scores(
    content: dict[str, Any],
    source: Path,
    task: ProbeTask,
    found: TaskClips,
    max_duration: float,
    num_workers: int,
    device: torch.device,
) -> tuple[np.ndarray, TaskClips, list[BrokenClip], int]:
    """-> logits (1, n, C), the clips they belong to, those that cannot be read, and the model's
    parameters
    """
    model = load_classifier(content["config"], content["model"], source).to(device)
    fbank = FbankConfig.from_dict(content["config"]["fbank"])
    scores: dict[str, Tensor] = {}
    failed: dict[str, str] = {}
    batches = feature_batches(found.cuts, fbank, max_duration, num_workers, strict=False)
    for batch, logits in scored_batches(model, batches, device, frames_heard(task, fbank), failed):
        scores.update(zip(batch["cut_ids"], logits))
    kept = found.without(failed)
    values = dict(zip(found.ids, found.values))
    broken = [BrokenClip(cut_id, reason, values[cut_id]) for cut_id, reason in failed.items()]
    logits = torch.stack([scores[cut_id] for cut_id in kept.ids]).unsqueeze(0)
    return logits.numpy(), kept, broken, sum(p.numel() for p in model.parameters())


def frames_heard(task: ProbeTask, fbank: FbankConfig) -> int | None:
    """How many frames of a clip the task's window lets through; None for all of them."""
    return (
        fbank.num_frames(round(task.max_seconds * fbank.sampling_rate))
        if task.max_seconds
        else None
    )


def scored_batches(
    model: ClipClassifier,
    batches: Iterable[dict],
    device: torch.device,
    frames: int | None,
    failed: dict[str, str] | None = None,
) -> Iterable[tuple[dict, Tensor]]:
    """Each batch that has a readable clip, with the logits (B, C) of its clips' first `frames`
    frames, on the CPU; the others go to `failed`.
    """
    for batch in batches:
        if failed is not None:
            failed |= dict(batch["failed"])
        if batch["cut_ids"]:
            features = batch["features"][:, :frames]
            lengths = batch["feature_lengths"].clamp(max=features.shape[1])
            yield batch, model(features.to(device), lengths.to(device)).float().cpu()
