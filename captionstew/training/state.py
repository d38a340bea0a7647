"""Everything that changes while a model is trained."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from captionstew.distributed import Rank
from captionstew.training.flags import TrainingFlags
from captionstew.training.precision import make_scaler
from captionstew.training.window import Window
from zipformer import Eden, ScaledAdam, get_parameter_groups, set_batch_count

BATCH_COUNT_INTERVAL = 10  # steps between two updates of the encoder's schedules, as in icefall


@dataclass
class Run:
    """One training: model, optimiser and the place it has come to."""

    model: nn.Module
    wrapped: nn.Module  # the model, once `distribute` was called the one whose gradients are shared
    optimizer: ScaledAdam
    scheduler: Eden
    scaler: torch.amp.GradScaler
    average: dict[str, Tensor]  # running average of the model's state, float64
    audio_per_step: float  # seconds over all processes
    step: int = 0
    epoch: int = 1
    position: dict[str, Any] | None = None
    nonfinite: int = 0
    stop_signalled: bool = False  # this process got SIGTERM
    stop_requested: bool = False  # all processes agreed to stop after this step
    window: Window = field(default_factory=Window)

    def update_schedules(self, flags: TrainingFlags) -> None:
        """Hands the encoder the batch count of the last step that icefall would have done so at."""
        step = self.step - self.step % BATCH_COUNT_INTERVAL
        set_batch_count(
            self.model, flags.first_batch_count() + step * self.audio_per_step / flags.ref_duration
        )


def new_run(model: nn.Module, flags: TrainingFlags, rank: Rank) -> Run:
    """A run at step 0, the model on its device and in training mode, its gradients not shared with
    other processes.
    """
    model.to(rank.device).train()
    optimizer = ScaledAdam(
        get_parameter_groups(model, lr=flags.base_lr), clipping_scale=flags.clipping_scale
    )
    state = model.state_dict().items()
    return Run(
        model=model,
        wrapped=model,
        optimizer=optimizer,
        scheduler=Eden(
            optimizer, flags.lr_batches, flags.lr_epochs, warmup_batches=flags.warm_step
        ),
        scaler=make_scaler(flags, rank.device),
        average={
            name: value.double() if value.is_floating_point() else value.clone()
            for name, value in state
        },
        audio_per_step=flags.max_duration * flags.accum_grad * rank.world_size,
    )


def distribute(run: Run, flags: TrainingFlags, rank: Rank) -> None:
    """Lets backward passes of `run.wrapped` share gradients; from here on none may go through
    `run.model` alone.

    Accumulated gradients are summed over processes once per step instead (sum_gradients).
    """
    if flags.accum_grad == 1:
        run.wrapped = share_gradients(run.model, rank)


def share_gradients(model: nn.Module, rank: Rank) -> nn.Module:
    """The model; of several processes one whose backward pass averages the gradients over them."""
    if rank.world_size == 1:
        return model
    # Parameters can be idle in a step: position scores are left out at random, one parameter per
    # layer always is.
    device_ids = [rank.device.index] if rank.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids, find_unused_parameters=True)
