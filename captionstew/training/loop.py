"""The one training loop.

A recipe hands over a model, a task (what a batch costs, how to validate) and the data (batches of
an epoch from a given place on). The loop owns everything else: precision, backward, clipping and
step, the encoder's batch count, the running average, checkpoints, resume, logging, validation, and
what happens when numbers stop being finite.

Losses are summed over the clips of all processes, as icefall does.
"""

import logging
import signal
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import nn

from captionstew import checkpoint as checkpoints
from captionstew.distributed import Rank, any_rank, sum_gradients
from captionstew.errors import one_line
from captionstew.flags import flags_to_dict
from captionstew.models.losses import Losses
from captionstew.training.flags import TrainingFlags
from captionstew.training.log import ScalarLog
from captionstew.training.nonfinite import (
    TrainingStopped,
    leave_out,
    list_failed,
    stop_out_of_memory,
    stop_with_evidence,
)
from captionstew.training.precision import (
    MIN_GRAD_SCALE,
    autocast,
    raise_small_scale,
    scale_has_collapsed,
    scaled_step,
)
from captionstew.training.preflight import report_data, run_preflight
from captionstew.training.progress import report_progress, steps_left
from captionstew.training.resume import restore, save
from captionstew.training.state import BATCH_COUNT_INTERVAL, Run, distribute, new_run
from captionstew.training.task import Task, TrainingData
from captionstew.training.trained_clips import remember_clips
from zipformer.scaled_adam import Diverged

Batch = dict[str, Any]


def train(
    model: nn.Module, task: Task, data: TrainingData, flags: TrainingFlags, rank: Rank
) -> None:
    """Trains until --num-epochs or --max-steps. Writes to --exp-dir: checkpoints, scalars.jsonl,
    tensorboard/.

    Raises:
      TrainingStopped: losses stayed NaN or infinite, the float16 scale collapsed, memory ran out, a
          loader died.
      CheckpointError: the checkpoint to continue from cannot be used.
    """
    if flags.num_threads:
        torch.set_num_threads(flags.num_threads)
    run = new_run(model, flags, rank)
    previous = signal.signal(signal.SIGTERM, lambda *_: setattr(run, "stop_signalled", True))
    try:
        restore(run, task, data, flags, rank)
        remember_clips(task, data, flags, rank)
        report_data(task, data, flags)
        if flags.preflight:
            run_preflight(run, task, data, flags, rank)
        distribute(run, flags, rank)
        _train_epochs(run, task, data, flags, rank)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingStopped(
            f"a loading process died ({one_line(error)}); go on with --resume true"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, previous)


def _train_epochs(
    run: Run, task: Task, data: TrainingData, flags: TrainingFlags, rank: Rank
) -> None:
    """The epochs that are left; saves and returns when it is asked to stop."""
    log = ScalarLog(
        flags.exp_dir, rank.is_main, flags.tensorboard, flags.wandb, flags_to_dict(flags)
    )
    try:
        while run.epoch <= flags.num_epochs and not _out_of_steps(run, flags):
            finished = _train_epoch(run, task, data, flags, rank, log)
            if run.stop_requested:
                save(run, task, data, flags, rank, checkpoints.INTERRUPTED)
                logging.info("stopped on request at step %d; continue with --resume true", run.step)
                return
            if not flags.valid_interval:
                _validate(run, task, data, flags, rank, log)
            if finished:
                run.epoch, run.position = run.epoch + 1, None
                if (flags.num_epochs + 1 - run.epoch) % flags.save_every_epochs == 0:
                    save(run, task, data, flags, rank, f"epoch-{run.epoch - 1}.pt")
        if run.position is not None:
            save(run, task, data, flags, rank, f"checkpoint-{run.step}.pt")
        logging.info("done: %d steps, %d epochs", run.step, run.epoch - 1)
    finally:
        log.close()


def _train_epoch(
    run: Run, task: Task, data: TrainingData, flags: TrainingFlags, rank: Rank, log: ScalarLog
) -> bool:
    """Trains on the rest of the epoch; False if it ended early (step limit, request to stop)."""
    run.model.train()
    run.scheduler.step_epoch(run.epoch - 1)
    batches = iter(data.train_batches(run.epoch, run.position))
    while batches_of_step := _next_batches(run, batches, flags.accum_grad):
        if run.step % BATCH_COUNT_INTERVAL == 0:
            run.update_schedules(flags)
        trained = _train_step(run, task, batches_of_step, flags, rank)
        run.position = batches_of_step[-1]["position"]
        if trained:
            _after_step(run, task, data, flags, rank, log)
        if run.stop_requested or _out_of_steps(run, flags):
            return False
    return True


def _next_batches(run: Run, batches: Iterator[Batch], count: int) -> list[Batch]:
    with run.window.waiting():
        return list(islice(batches, count))


def _train_step(
    run: Run, task: Task, batches: list[Batch], flags: TrainingFlags, rank: Rank
) -> bool:
    """One update with the sum of the batches' losses; False if none was done."""
    used, costs = [], []
    for batch in batches:
        losses = _forward_and_backward(run, task, batch, flags, rank)
        if losses is not None:
            used.append(batch)
            costs.append(losses)
    if not used:
        return False
    if flags.accum_grad > 1:
        sum_gradients(run.model)
    try:
        stepped = scaled_step(run.scaler, run.optimizer)
    except Diverged as error:
        stop_with_evidence(run, used, flags, rank, str(error))
    run.optimizer.zero_grad(set_to_none=True)
    if scale_has_collapsed(run.scaler):
        stop_with_evidence(
            run, used, flags, rank, f"the float16 gradient scale fell below {MIN_GRAD_SCALE}"
        )
    if not stepped:
        run.window.skipped += 1
        return False
    if run.optimizer.last_step.skipped:
        leave_out(run, used, "gradient", flags, rank)
        return False
    run.scheduler.step_batch()
    run.step += 1
    raise_small_scale(run.scaler, run.step)
    run.window.count_step(used, costs, run.optimizer.last_step)
    return True


def _forward_and_backward(
    run: Run, task: Task, batch: Batch, flags: TrainingFlags, rank: Rank
) -> Losses | None:
    """Adds a batch's gradients; None if it is left out: no readable clip on some rank, a loss that
    is not finite.
    """
    list_failed(batch, flags, rank)
    run.window.sums["failed"] += len(batch["failed"])
    if any_rank([not batch["cut_ids"]], rank.device)[0]:
        return None
    try:
        with autocast(flags, rank.device):
            losses = task.losses(run.wrapped, batch, rank.device)
        bad, stop = any_rank([not torch.isfinite(losses.total), run.stop_signalled], rank.device)
        run.stop_requested |= stop
        if bad:
            leave_out(run, [batch], "loss", flags, rank)
            return None
        # DDP averages gradients over processes; the loss is a sum, hence the factor.
        factor = rank.world_size if flags.accum_grad == 1 else 1
        run.scaler.scale(losses.total * factor).backward()
    except torch.OutOfMemoryError as error:
        stop_out_of_memory(batch, flags, error)
    return losses


def _after_step(
    run: Run, task: Task, data: TrainingData, flags: TrainingFlags, rank: Rank, log: ScalarLog
) -> None:
    """What happens every so many steps: average, progress, checkpoint, validation."""
    if run.step % flags.average_period == 0:
        checkpoints.update_running_average(run.average, run.model, run.step, flags.average_period)
    if run.step % flags.log_interval == 0:
        report_progress(
            run, steps_left(run, data.sampler.expected_batches, flags), flags, rank, log
        )
    if run.step % flags.save_every_n == 0:
        with run.window.paused():
            save(run, task, data, flags, rank, f"checkpoint-{run.step}.pt")
            if rank.is_main:
                checkpoints.remove_old_checkpoints(flags.exp_dir, flags.keep_last_k)
    if flags.valid_interval and run.step % flags.valid_interval == 0 and not run.stop_requested:
        _validate(run, task, data, flags, rank, log)


def _validate(
    run: Run, task: Task, data: TrainingData, flags: TrainingFlags, rank: Rank, log: ScalarLog
) -> None:
    """Metrics of the current parameters; the run is exactly as before afterwards."""
    state = checkpoints.random_state()
    run.model.eval()
    with run.window.paused(), torch.inference_mode(), autocast(flags, rank.device):
        metrics = task.validate(run.model, data.valid_batches(), rank.device)
        if rank.is_main and hasattr(task, "samples"):
            log.write_samples(run.step, task.samples())
    run.model.train()
    checkpoints.set_random_state(state)
    log.write("valid", run.step, run.epoch, metrics)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    logging.info("epoch %d, step %d, validation: %s", run.epoch, run.step, shown)


def _out_of_steps(run: Run, flags: TrainingFlags) -> bool:
    return bool(flags.max_steps) and run.step >= flags.max_steps
