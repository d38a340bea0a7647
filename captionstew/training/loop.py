"""The one training loop.

A recipe hands over a model, a task (what a batch costs, how to validate) and the data (batches of an epoch from a given
place on). The loop owns everything else: precision, backward, clipping and step, the encoder's batch count, the running
average, checkpoints, resume, logging, validation, and what happens when numbers stop being finite.

Losses are summed over the clips of all processes, as icefall does.
"""

import logging
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from captionstew.data.audio import SAMPLING_RATE
from captionstew.data.programs import UserError
from captionstew.training import checkpoint as checkpoints
from captionstew.training.distributed import Rank, barrier, gather_objects, sum_over_ranks
from captionstew.training.flags import TrainingFlags, flags_to_dict
from captionstew.training.log import ScalarLog
from zipformer import Eden, ScaledAdam, get_parameter_groups, load_training_state, set_batch_count, training_state

BATCH_COUNT_INTERVAL = 10  # steps between two updates of the encoder's schedules, as in icefall
MIN_GRAD_SCALE = 1e-5  # below this, float16 training has diverged


class Losses(NamedTuple):
    """What one batch costs. `total` and `terms` are sums over this process's clips; `gauges` are plain numbers."""

    total: Tensor
    terms: dict[str, Tensor]
    gauges: dict[str, Tensor]


class Task(Protocol):
    """An objective. `config` is all that evaluation needs to rebuild the model; it is saved in every checkpoint."""

    config: dict[str, Any]

    def losses(self, model: nn.Module, batch: dict[str, Any], device: torch.device) -> Losses:
        """One forward pass in training mode."""

    def validate(self, model: nn.Module, batches: Iterable[dict[str, Any]], device: torch.device) -> dict[str, float]:
        """Metrics on the validation data; called on every rank with the unwrapped model in evaluation mode."""


class TrainingData(Protocol):
    """Batches as captionstew.data.dataset makes them, and `position`, plain values: the place after the batch."""

    def train_batches(self, epoch: int, position: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
        """The batches of an epoch, from its start or from after the batch with the given position."""

    def valid_batches(self) -> Iterable[dict[str, Any]]:
        """Validation batches of this rank, the same every time."""


class TrainingStopped(UserError):
    """Training cannot go on; the message says why and what was saved."""


@dataclass
class Run:
    """Everything that changes while training."""

    model: nn.Module
    wrapped: nn.Module
    optimizer: ScaledAdam
    scheduler: Eden
    scaler: torch.amp.GradScaler
    average: dict[str, Tensor]
    step: int = 0
    epoch: int = 1
    position: dict[str, Any] | None = None
    nonfinite: int = 0
    stop_signalled: bool = False  # this process got SIGTERM
    stop_requested: bool = False  # all processes agreed to stop after this step
    window: "Window" = field(default_factory=lambda: Window())


@dataclass
class Window:
    """Sums since the last progress line."""

    started: float = field(default_factory=time.monotonic)
    steps: int = 0
    clips: int = 0
    failed: int = 0
    audio_seconds: float = 0.0
    waited_seconds: float = 0.0
    valid_frames: int = 0
    all_frames: int = 0
    terms: dict[str, float] = field(default_factory=dict)


def train(model: nn.Module, task: Task, data: TrainingData, flags: TrainingFlags, rank: Rank) -> None:
    """Trains until --num-epochs or --max-steps. Writes to --exp-dir: checkpoints, scalars.jsonl, tensorboard/.

    Raises:
      TrainingStopped: losses stayed NaN or infinite, or the float16 scale collapsed; batch and model are saved.
      CheckpointError: the checkpoint to continue from cannot be used.
    """
    run = _start(model, task, flags, rank)
    log = ScalarLog(flags.exp_dir, rank.is_main, flags.tensorboard, flags.wandb, flags_to_dict(flags))
    previous = signal.signal(signal.SIGTERM, lambda *_: setattr(run, "stop_signalled", True))
    try:
        while run.epoch <= flags.num_epochs and not _out_of_steps(run, flags):
            finished = _train_epoch(run, task, data, flags, rank, log)
            if run.stop_requested:
                _save(run, task, flags, rank, f"checkpoint-{run.step}.pt")
                logging.info("stopped on request at step %d; continue with --resume true", run.step)
                return
            if not flags.valid_interval:
                _validate(run, task, data, flags, rank, log)
            if finished:
                run.epoch, run.position = run.epoch + 1, None
                if (flags.num_epochs + 1 - run.epoch) % flags.save_every_epochs == 0:
                    _save(run, task, flags, rank, f"epoch-{run.epoch - 1}.pt")
        if run.position is not None:
            _save(run, task, flags, rank, f"checkpoint-{run.step}.pt")
        logging.info("done: %d steps, %d epochs", run.step, run.epoch - 1)
    finally:
        signal.signal(signal.SIGTERM, previous)
        log.close()


def _start(model: nn.Module, task: Task, flags: TrainingFlags, rank: Rank) -> Run:
    """Builds the optimiser and restores the checkpoint that the flags ask for, saying what was restored."""
    if flags.num_threads:
        torch.set_num_threads(flags.num_threads)
    model.to(rank.device).train()
    optimizer = ScaledAdam(get_parameter_groups(model, lr=flags.base_lr), clipping_scale=flags.clipping_scale)
    run = Run(
        model=model,
        wrapped=_wrap(model, rank),
        optimizer=optimizer,
        scheduler=Eden(optimizer, flags.lr_batches, flags.lr_epochs, warmup_batches=flags.warm_step),
        scaler=torch.amp.GradScaler(rank.device.type, enabled=flags.use_fp16, init_scale=1.0),
        average={
            name: value.double() if value.is_floating_point() else value.clone()
            for name, value in model.state_dict().items()
        },
    )
    found = _checkpoint_to_continue(flags)
    if found is not None:
        path, content = found
        _restore(run, content, rank, flags)
        logging.info("restored %s: step %d, epoch %d, position %s", path, run.step, run.epoch, run.position)
    else:
        logging.info("starting from step 0 with %d parameters", sum(p.numel() for p in model.parameters()))
    return run


def _wrap(model: nn.Module, rank: Rank) -> nn.Module:
    if rank.world_size == 1:
        return model
    # Parameters can be idle in a step: position scores are left out at random, one parameter per layer always is.
    device_ids = [rank.device.index] if rank.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids, find_unused_parameters=True)


def _checkpoint_to_continue(flags: TrainingFlags) -> tuple[Any, dict[str, Any]] | None:
    if flags.resume:
        return checkpoints.newest_checkpoint(flags.exp_dir)
    if flags.start_batch > 0:
        path = flags.exp_dir / f"checkpoint-{flags.start_batch}.pt"
    elif flags.start_epoch > 1:
        path = flags.exp_dir / f"epoch-{flags.start_epoch - 1}.pt"
    else:
        return None
    return path, checkpoints.load_checkpoint(path)


def _restore(run: Run, content: dict[str, Any], rank: Rank, flags: TrainingFlags) -> None:
    checkpoints.load_weights(run.model, content["model"], "the checkpoint")
    for name, value in content["model_avg"].items():
        run.average[name].copy_(value)
    _restore_optimizer(run.optimizer, content["optimizer"])
    run.scheduler.load_state_dict(content["scheduler"])
    run.scaler.load_state_dict(content["grad_scaler"])
    run.step, run.epoch, run.position = content["step"], content["epoch"], content["position"]
    run.nonfinite = content["nonfinite"]
    if len(content["ranks"]) == rank.world_size:
        own = content["ranks"][rank.rank]
        load_training_state(run.model, own["encoder"])
        checkpoints.set_random_state(own["random"])
    elif flags.resume_mode == "exact":
        raise checkpoints.CheckpointError(
            f"the checkpoint was written by {len(content['ranks'])} processes, this run has {rank.world_size}: "
            "use the same number, or --resume-mode reseed to go on with other random numbers"
        )


def _restore_optimizer(optimizer: ScaledAdam, state: dict[str, Any]) -> None:
    """Loads the optimiser's state, but keeps rates and clipping of this command line: a run may go on with others."""
    asked = [{name: group[name] for name in ("base_lr", "clipping_scale")} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, options in zip(optimizer.param_groups, asked):
        for name, value in options.items():
            if group[name] != value:
                logging.info("%s changes from %s to %s", name, group[name], value)
                group[name] = value


def _train_epoch(run: Run, task: Task, data: TrainingData, flags: TrainingFlags, rank: Rank, log: ScalarLog) -> bool:
    """Trains on the rest of the epoch; False if it ended early (step limit, request to stop)."""
    run.model.train()
    run.scheduler.step_epoch(run.epoch - 1)
    run.window = Window()
    batches = iter(data.train_batches(run.epoch, run.position))
    while True:
        asked = time.monotonic()
        batch = next(batches, None)
        run.window.waited_seconds += time.monotonic() - asked
        if batch is None:
            return True
        if run.step % BATCH_COUNT_INTERVAL == 0:
            audio_per_step = flags.max_duration * rank.world_size
            set_batch_count(run.model, run.step * audio_per_step / flags.ref_duration)
        trained = _train_step(run, task, batch, flags, rank)
        run.position = batch["position"]
        if trained:
            _after_step(run, task, flags, rank, log)
        if run.stop_requested:
            return False
        if not trained:
            continue
        if flags.valid_interval and run.step % flags.valid_interval == 0:
            _validate(run, task, data, flags, rank, log)
        if _out_of_steps(run, flags):
            return False


def _train_step(run: Run, task: Task, batch: dict[str, Any], flags: TrainingFlags, rank: Rank) -> bool:
    """One update; False if the batch was left out: no readable clip on some rank, a loss or gradient not finite."""
    _list_failed(batch, flags, rank)
    if _agree([not batch["cut_ids"]], rank.device)[0]:
        return False
    with _autocast(flags, rank.device):
        losses = task.losses(run.wrapped, batch, rank.device)
    bad, run.stop_requested = _agree([not torch.isfinite(losses.total), run.stop_signalled], rank.device)
    if bad:
        _leave_out(run, batch, "loss", flags, rank)
        return False
    # DDP averages gradients over processes; the loss is a sum, hence the factor.
    run.scaler.scale(losses.total * rank.world_size).backward()
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    if run.optimizer.last_step.skipped:
        _leave_out(run, batch, "gradient", flags, rank)
        return False
    _check_grad_scale(run, batch, flags, rank)
    run.scheduler.step_batch()
    run.step += 1
    _count(run.window, batch, losses)
    return True


def _autocast(flags: TrainingFlags, device: torch.device):
    if flags.use_fp16 or flags.use_bf16:
        return torch.autocast(device.type, dtype=torch.float16 if flags.use_fp16 else torch.bfloat16)
    return nullcontext()


def _agree(conditions: list[Any], device: torch.device) -> list[bool]:
    """For each condition: does it hold on any rank?"""
    return [count > 0 for count in sum_over_ranks([float(condition) for condition in conditions], device)]


def _list_failed(batch: dict[str, Any], flags: TrainingFlags, rank: Rank) -> None:
    """Writes down the clips that could not be read, with the reason."""
    if batch["failed"]:
        with open(flags.exp_dir / f"failed-rank{rank.rank}.txt", "a", encoding="utf-8") as file:
            file.writelines(f"{cut_id}\t{' '.join(reason.split())}\n" for cut_id, reason in batch["failed"])


def _leave_out(run: Run, batch: dict[str, Any], what: str, flags: TrainingFlags, rank: Rank) -> None:
    """Counts a batch without finite numbers, lists its clips, and stops when there were too many."""
    run.nonfinite += 1
    with open(flags.exp_dir / f"nonfinite-rank{rank.rank}.txt", "a", encoding="utf-8") as file:
        file.write(f"step {run.step} epoch {run.epoch} {what}: {' '.join(batch['cut_ids'])}\n")
    logging.warning("%s is NaN or infinite, batch %d of this kind left out", what, run.nonfinite)
    if run.nonfinite > flags.max_nonfinite:
        _stop_with_evidence(run, batch, flags, rank, f"{run.nonfinite} batches had a NaN or infinite {what}")


def _check_grad_scale(run: Run, batch: dict[str, Any], flags: TrainingFlags, rank: Rank) -> None:
    """Lets a small float16 scale grow faster, and stops when it has collapsed (as icefall does)."""
    if not flags.use_fp16 or run.step % 100:
        return
    scale = run.scaler.get_scale()
    if scale < 8.0 or (scale < 32.0 and run.step % 400 == 0):
        run.scaler.update(scale * 2.0)
    if scale < MIN_GRAD_SCALE:
        _stop_with_evidence(run, batch, flags, rank, f"the float16 gradient scale fell to {scale}")


def _stop_with_evidence(run: Run, batch: dict[str, Any], flags: TrainingFlags, rank: Rank, reason: str) -> None:
    path = flags.exp_dir / f"stopped-rank{rank.rank}.pt"
    tensors = {name: value for name, value in batch.items() if isinstance(value, (Tensor, list, int, float, str))}
    checkpoints.save_checkpoint(path, {"batch": tensors, "model": run.model.state_dict(), "step": run.step})
    raise TrainingStopped(
        f"{reason}; batch and parameters are in {path}. Usual causes: --base-lr too high for this amount of audio per "
        "step, a broken recording, float16 (try --use-bf16 true). Continue from an older checkpoint with a lower rate."
    )


def _after_step(run: Run, task: Task, flags: TrainingFlags, rank: Rank, log: ScalarLog) -> None:
    """What happens every so many steps: average, checkpoint, progress."""
    if run.step % flags.average_period == 0:
        checkpoints.update_running_average(run.average, run.model, run.step, flags.average_period)
    if run.step % flags.save_every_n == 0:
        _save(run, task, flags, rank, f"checkpoint-{run.step}.pt")
        if rank.is_main:
            checkpoints.remove_old_checkpoints(flags.exp_dir, flags.keep_last_k)
    if run.step % flags.log_interval == 0:
        _report_progress(run, flags, rank, log)


def _save(run: Run, task: Task, flags: TrainingFlags, rank: Rank, name: str) -> None:
    """Rank 0 writes the checkpoint with every rank's random state."""
    own = {"encoder": training_state(run.model), "random": checkpoints.random_state()}
    ranks = gather_objects(own)
    if rank.is_main:
        content = {
            "model": run.model.state_dict(),
            "model_avg": run.average,
            "config": task.config,
            "flags": flags_to_dict(flags),
            "step": run.step,
            "epoch": run.epoch,
            "position": run.position,
            "nonfinite": run.nonfinite,
            "average_period": flags.average_period,
            "optimizer": run.optimizer.state_dict(),
            "scheduler": run.scheduler.state_dict(),
            "grad_scaler": run.scaler.state_dict(),
            "ranks": ranks,
            "provenance": checkpoints.provenance(),
        }
        checkpoints.save_checkpoint(flags.exp_dir / name, content)
    barrier()


def _validate(run: Run, task: Task, data: TrainingData, flags: TrainingFlags, rank: Rank, log: ScalarLog) -> None:
    """Metrics of the current parameters; the run is exactly as before afterwards."""
    state = checkpoints.random_state()
    run.model.eval()
    with torch.inference_mode(), _autocast(flags, rank.device):
        metrics = task.validate(run.model, data.valid_batches(), rank.device)
    run.model.train()
    checkpoints.set_random_state(state)
    log.write("valid", run.step, run.epoch, metrics)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    logging.info("epoch %d, step %d, validation: %s", run.epoch, run.step, shown)
    run.window = Window()


def _count(window: Window, batch: dict[str, Any], losses: Losses) -> None:
    window.steps += 1
    window.clips += len(batch["cut_ids"])
    window.failed += len(batch["failed"])
    window.audio_seconds += float(batch["num_samples"].sum()) / SAMPLING_RATE  # after cropping
    window.valid_frames += int(batch["feature_lengths"].sum())
    window.all_frames += batch["features"].shape[0] * batch["features"].shape[1]
    for name, value in losses.terms.items():
        window.terms[name] = window.terms.get(name, 0.0) + float(value.detach())
    for name, value in losses.gauges.items():
        window.terms[name] = window.terms.get(name, 0.0) + float(value.detach()) * len(batch["cut_ids"])


def _report_progress(run: Run, flags: TrainingFlags, rank: Rank, log: ScalarLog) -> None:
    """One line and one record for the steps since the last one, over all ranks."""
    window, run.window = run.window, Window()
    elapsed = time.monotonic() - window.started
    names = sorted(window.terms)
    sums = [
        window.clips,
        window.failed,
        window.audio_seconds,
        window.waited_seconds,
        window.valid_frames,
        window.all_frames,
    ]
    totals = sum_over_ranks([*map(float, sums), *(window.terms[name] for name in names)], rank.device)
    clips, failed, seconds, waited, valid, frames = totals[:6]
    report = run.optimizer.last_step
    values = {name: total / max(clips, 1) for name, total in zip(names, totals[6:])}
    values |= {
        "learning_rate": run.scheduler.last_lr()[0],
        "gradient_norm": report.gradient_norms[0] if report.gradient_norms else 0.0,
        "clipped_share": report.share_clipped[0] if report.share_clipped else 0.0,
        "batch_seconds": seconds / max(window.steps, 1),
        "padding_share": 1.0 - valid / max(frames, 1),
        "audio_seconds_per_second": seconds / elapsed,
        "data_wait_share": waited / (elapsed * rank.world_size),
        "failed_clips": failed,
    }
    if flags.use_fp16:
        values["grad_scale"] = run.scaler.get_scale()
    log.write("train", run.step, run.epoch, values)
    left = ""
    if flags.max_steps:
        left = f", {(flags.max_steps - run.step) * elapsed / max(window.steps, 1) / 60:.0f} min left"
    shown = ", ".join(f"{name} {values[name]:.4g}" for name in names)
    logging.info(
        "epoch %d, step %d, %s, lr %.2e, %.0f s/s%s", run.epoch, run.step, shown, values["learning_rate"],
        values["audio_seconds_per_second"], left,
    )  # fmt: skip


def _out_of_steps(run: Run, flags: TrainingFlags) -> bool:
    return bool(flags.max_steps) and run.step >= flags.max_steps
