"""Numbers of 16 bits: autocast, and float16's gradient scale."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.optim import Optimizer

from captionstew.training.flags import TrainingFlags

MIN_GRAD_SCALE = 1e-5  # below this, float16 training has diverged
CHECK_INTERVAL = 100  # steps between two looks at a small scale


def autocast(flags: TrainingFlags, device: torch.device) -> AbstractContextManager[object]:
    """The context of forward passes."""
    if flags.use_fp16 or flags.use_bf16:
        return torch.autocast(
            device.type, dtype=torch.float16 if flags.use_fp16 else torch.bfloat16
        )
    return nullcontext()


def make_scaler(flags: TrainingFlags, device: torch.device) -> torch.amp.GradScaler:
    """Scales nothing unless training in float16; starts at 1 as icefall does."""
    return torch.amp.GradScaler(device.type, enabled=flags.use_fp16, init_scale=1.0)


def scaled_step(scaler: torch.amp.GradScaler, optimizer: Optimizer) -> bool:
    """The optimiser's step; False if an infinite float16 gradient had it left out and the scale
    halved.
    """
    before = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale() >= before


def scale_has_collapsed(scaler: torch.amp.GradScaler) -> bool:
    return scaler.is_enabled() and scaler.get_scale() < MIN_GRAD_SCALE


def raise_small_scale(scaler: torch.amp.GradScaler, step: int) -> None:
    """Lets a small scale grow faster than torch would: below 8 every 100 steps, below 32 every 400
    (icefall's rule).
    """
    if not scaler.is_enabled() or step % CHECK_INTERVAL:
        return
    scale = scaler.get_scale()
    if scale < 8.0 or (scale < 32.0 and step % (4 * CHECK_INTERVAL) == 0):
        scaler.update(scale * 2.0)
