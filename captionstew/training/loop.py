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

import torch

from captionstew import checkpoint as checkpoints
from captionstew.data.batches.dataset import Batch
from captionstew.data.batches.loader import LoaderDied
from captionstew.distributed import Rank, any_rank, sum_gradients
from captionstew.errors import lost_worker
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
from captionstew.training.progress import report_progress
from captionstew.training.resume import restore, save
from captionstew.training.state import BATCH_COUNT_INTERVAL, TrainerState
from captionstew.training.task import ModelT, ShowsSamples, Task, TrainingData
from captionstew.training.trained_clips import remember_clips
from zipformer.scaled_adam import Diverged


def train(
    model: ModelT, task: Task[ModelT], data: TrainingData, flags: TrainingFlags, rank: Rank
) -> None:
    """Trains until --num-epochs or --max-steps; see Trainer.train."""
    Trainer(model, task, data, flags, rank).train()


class Trainer(TrainerState[ModelT]):
    """The loop over what a training holds."""

    def train(self) -> None:
        """Trains until --num-epochs or --max-steps. Writes to --exp-dir: checkpoints,
        scalars.jsonl, tensorboard/.

        Raises:
          TrainingStopped: losses stayed NaN or infinite, the float16 scale collapsed, memory ran
              out, a loader died.
          CheckpointError: the checkpoint to continue from cannot be used.
        """
        if self.flags.num_threads:
            torch.set_num_threads(self.flags.num_threads)
        previous = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stop_signalled", True))
        try:
            restore(self)
            remember_clips(self.task, self.data, self.flags, self.rank)
            report_data(self)
            if self.flags.preflight:
                run_preflight(self)
            self.distribute()
            self._train_epochs()
        except LoaderDied as error:
            raise TrainingStopped(f"{error}; go on with --resume true") from error
        except RuntimeError as error:
            if not (lost := lost_worker(error)):
                raise
            raise TrainingStopped(f"{lost}; go on with --resume true") from error
        finally:
            signal.signal(signal.SIGTERM, previous)

    def _train_epochs(self) -> None:
        """The epochs that are left; saves and returns when it is asked to stop."""
        flags = self.flags
        self.log = ScalarLog(
            flags.exp_dir,
            self.rank.is_main,
            flags.tensorboard,
            flags.wandb,
            flags_to_dict(flags),
            self.step,
        )
        try:
            if self._validation_is_due():  # it was when the checkpoint was written, just before
                self._validate()
            while self.epoch <= flags.num_epochs and not self._out_of_steps():
                finished = self._train_epoch()
                if self.stop_requested:
                    save(self, checkpoints.INTERRUPTED)
                    logging.info(
                        "stopped on request at step %d; continue with --resume true", self.step
                    )
                    return
                if not flags.valid_interval:
                    self._validate()
                if finished:
                    self.epoch, self.position = self.epoch + 1, None
                    if (flags.num_epochs + 1 - self.epoch) % flags.save_every_epochs == 0:
                        save(self, f"epoch-{self.epoch - 1}.pt")
            if self.position is not None:
                save(self, f"checkpoint-{self.step}.pt")
            logging.info("done: %d steps, %d epochs", self.step, self.epoch - 1)
        finally:
            self.log.close()

    def _train_epoch(self) -> bool:
        """Trains on the rest of the epoch; False if it ended early: step limit, request to stop."""
        self.model.train()
        self.scheduler.step_epoch(self._epoch_of_rates())
        batches = iter(self.data.train_batches(self.epoch, self.position))
        while batches_of_step := self._next_batches(batches):
            if self.step % BATCH_COUNT_INTERVAL == 0:
                self.update_schedules()
            trained = self._train_step(batches_of_step)
            self.position = batches_of_step[-1]["position"]
            if trained:
                self._after_step()
            if self.stop_requested or self._out_of_steps():
                return False
        return True

    def _next_batches(self, batches: Iterator[Batch]) -> list[Batch]:
        with self.window.waiting():
            return list(islice(batches, self.flags.accum_grad))

    def _train_step(self, batches: list[Batch]) -> bool:
        """One update with the sum of the batches' losses; False if none was done."""
        used: list[Batch] = []
        costs: list[Losses] = []
        for batch in batches:
            losses = self._forward_and_backward(batch)
            if losses is not None:
                used.append(batch)
                costs.append(losses)
        if not used:
            return False
        if self.flags.accum_grad > 1:
            sum_gradients(self.model)
        try:
            stepped = scaled_step(self.scaler, self.optimizer)
        except Diverged as error:
            stop_with_evidence(self, used, str(error))
        self.optimizer.zero_grad(set_to_none=True)
        if scale_has_collapsed(self.scaler):
            stop_with_evidence(
                self, used, f"the float16 gradient scale fell below {MIN_GRAD_SCALE}"
            )
        if not stepped:
            self.window.skipped += 1
            return False
        if self.optimizer.last_step.skipped:
            leave_out(self, used, "gradient")
            return False
        self.step += 1
        self.scheduler.epoch = self._epoch_of_rates()
        self.scheduler.step_batch()
        raise_small_scale(self.scaler, self.step)
        self.window.count_step(used, costs, self.optimizer.last_step)
        return True

    def _forward_and_backward(self, batch: Batch) -> Losses | None:
        """Adds a batch's gradients; None if it is left out: no readable clip on some rank, a loss
        that is not finite.
        """
        device = self.rank.device
        list_failed(self, batch)
        self.window.sums["failed"] += len(batch["failed"])
        if any_rank([not batch["cut_ids"]], device)[0]:
            return None
        try:
            with autocast(self.flags, device):
                losses = self.task.losses(self.wrapped, batch, device)
            bad, stop = any_rank([not torch.isfinite(losses.total), self.stop_signalled], device)
            self.stop_requested |= stop
            if bad:
                leave_out(self, [batch], "loss")
                return None
            # DDP averages gradients over processes; the loss is a sum, hence the factor.
            factor = self.rank.world_size if self.flags.accum_grad == 1 else 1
            self.scaler.scale(losses.total * factor).backward()
        except torch.OutOfMemoryError as error:
            stop_out_of_memory(self, batch, error)
        return losses

    def _epoch_of_rates(self) -> float:
        """Eden's epoch: of the corpus, or so many steps that corpora of any size have one rate."""
        if self.flags.lr_steps_per_epoch:
            return self.step / self.flags.lr_steps_per_epoch
        return self.epoch - 1

    def _after_step(self) -> None:
        """What happens every so many steps: average, progress, checkpoint, validation."""
        flags, step = self.flags, self.step
        if step % flags.average_period == 0:
            checkpoints.update_running_average(self.average, self.model, step, flags.average_period)
        if step % flags.log_interval == 0:
            report_progress(self)
        if step % flags.save_every_n == 0:
            with self.window.paused():
                save(self, f"checkpoint-{step}.pt")
                if self.rank.is_main:
                    checkpoints.remove_old_checkpoints(flags.exp_dir, flags.keep_last_k)
        if self._validation_is_due() and not self.stop_requested:
            self._validate()

    def _validation_is_due(self) -> bool:
        """Whether --valid-interval asks for one at this step that has not been done."""
        interval = self.flags.valid_interval
        return interval > 0 and self.step % interval == 0 and self.validated != self.step

    def _validate(self) -> None:
        """Metrics of the current parameters; the run is exactly as before afterwards."""
        self.validated = self.step
        state = checkpoints.random_state()
        self.model.eval()
        with self.window.paused(), torch.inference_mode(), autocast(self.flags, self.rank.device):
            metrics = self.task.validate(self.model, self.data.valid_batches(), self.rank.device)
            if self.rank.is_main and isinstance(self.task, ShowsSamples):
                self.log.write_samples(self.step, self.task.samples())
        self.model.train()
        checkpoints.set_random_state(state)
        self.log.write("valid", self.step, self.epoch, metrics)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        logging.info("epoch %d, step %d, validation: %s", self.epoch, self.step, shown)

    def _out_of_steps(self) -> bool:
        return bool(self.flags.max_steps) and self.step >= self.flags.max_steps
