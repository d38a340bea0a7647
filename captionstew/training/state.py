"""All that a training holds: what it works with, and what changes on its way."""

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from captionstew.data.batches.dataset import Batch
from captionstew.distributed import Rank
from captionstew.models.losses import Losses
from captionstew.training.flags import TrainingFlags
from captionstew.training.log import ScalarLog
from captionstew.training.precision import make_scaler
from captionstew.training.task import ModelT, Task, TrainingData
from zipformer import Eden, ScaledAdam, get_parameter_groups, set_batch_count
from zipformer.scaled_adam import StepReport

BATCH_COUNT_INTERVAL = 10  # steps between two updates of the encoder's schedules, as in icefall


@dataclass
class Window:
    """What happened on this rank since the last progress line."""

    started: float = field(default_factory=time.monotonic)
    steps: int = 0
    skipped: int = 0  # by float16's gradient scaling
    clipped: int = 0
    gradient_norm: float = 0.0  # sum over steps
    # sums over clips, and losses and gauges; the report adds them up over ranks
    sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    terms: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def count_step(
        self, batches: Sequence[Batch], losses: Sequence[Losses], report: StepReport
    ) -> None:
        self.steps += 1
        self.gradient_norm += math.hypot(*report.gradient_norms)
        self.clipped += any(factor < 1.0 for factor in report.clip_factors)
        for batch, costs in zip(batches, losses, strict=True):
            clips = len(batch["cut_ids"])
            self.sums["clips"] += clips
            self.sums["audio_seconds"] += (
                float(batch["num_samples"].sum()) / batch["sampling_rate"]
            )  # after cropping
            self.sums["valid_frames"] += int(batch["feature_lengths"].sum())
            self.sums["all_frames"] += batch["features"].shape[0] * batch["features"].shape[1]
            for name, value in costs.terms.items():
                self.terms[name] += float(value.detach())
            for name, value in costs.gauges.items():
                self.terms[name] += float(value.detach()) * clips

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint between two progress lines."""
        values = vars(self) | {"sums": dict(self.sums), "terms": dict(self.terms)}
        values["elapsed"] = time.monotonic() - values.pop("started")
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Window":
        """The window that goes on where state_dict() was called."""
        values = dict(values)
        window = cls(started=time.monotonic() - values.pop("elapsed"))
        window.sums.update(values.pop("sums"))
        window.terms.update(values.pop("terms"))
        vars(window).update(values)
        return window

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent here is time that the training waited for data."""
        asked = time.monotonic()
        yield
        self.sums["waited_seconds"] += time.monotonic() - asked

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent here (validation, checkpoints) says nothing about the speed of training."""
        asked = time.monotonic()
        yield
        self.started += time.monotonic() - asked


class TrainerState(Generic[ModelT]):
    """One training at step 0: the model on its device and in training mode, its gradients not
    shared with other processes.

    `average` is the running average of the model's state in float64, `audio_per_step` in seconds
    over all processes; `wrapped` is the model, once `distribute` was called the one whose gradients
    are shared.
    """

    log: ScalarLog  # opened when the first epoch begins

    def __init__(
        self,
        model: ModelT,
        task: Task[ModelT],
        data: TrainingData,
        flags: TrainingFlags,
        rank: Rank,
    ) -> None:
        self.task = task
        self.data = data
        self.flags = flags
        self.rank = rank
        self.model = model.to(rank.device).train()
        self.wrapped: nn.Module = model
        self.optimizer = ScaledAdam(
            get_parameter_groups(model, lr=flags.base_lr), clipping_scale=flags.clipping_scale
        )
        self.scheduler = Eden(
            self.optimizer, flags.lr_batches, flags.lr_epochs, warmup_batches=flags.warm_step
        )
        self.scaler = make_scaler(flags, rank.device)
        self.average: dict[str, Tensor] = {
            name: value.double() if value.is_floating_point() else value.clone()
            for name, value in model.state_dict().items()
        }
        self.audio_per_step = flags.max_duration * flags.accum_grad * rank.world_size
        self.step = 0
        self.epoch = 1
        self.position: dict[str, Any] | None = None  # in the epoch, as the data gave it
        self.nonfinite = 0
        self.validated = 0  # step of the last validation
        self.stop_signalled = False  # this process got SIGTERM
        self.stop_requested = False  # all processes agreed to stop after this step
        self.window = Window()

    def update_schedules(self) -> None:
        """Hands the encoder the batch count of the last step that icefall would have done so at."""
        step = self.step - self.step % BATCH_COUNT_INTERVAL
        batch_count = step * self.audio_per_step / self.flags.ref_duration
        set_batch_count(self.model, self.flags.first_batch_count() + batch_count)

    def distribute(self) -> None:
        """Lets backward passes of `wrapped` share gradients; from here on none may go through
        `model` alone.

        Accumulated gradients are summed over processes once per step instead (sum_gradients).
        """
        if self.flags.accum_grad == 1:
            self.wrapped = share_gradients(self.model, self.rank)


def share_gradients(model: nn.Module, rank: Rank) -> nn.Module:
    """The model; of several processes one whose backward pass averages the gradients over them."""
    if rank.world_size == 1:
        return model
    # Parameters can be idle in a step: position scores are left out at random, one parameter per
    # layer always is.
    device_ids = [rank.device.index] if rank.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids, find_unused_parameters=True)
