"""Changes of frame rate and of the number of channels, and the bypass that joins a stack's input
and output.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zipformer.randomness import StochasticModule
from zipformer.regularisers import LIMIT_PARAM_PROBABILITY, limit_param
from zipformer.schedules import Rate, ScheduledFloat


class Downsample(nn.Module):
    """Every `factor` frames become one: their average with learned weights softmax(bias)."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.bias = nn.Parameter(torch.zeros(factor))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(N, T, C) -> (N, ceil(T / factor), C)

        The last group is filled up by repeating a frame: the tensor's last or, where `lengths` (N,)
        are given, each item's last.
        """
        if lengths is not None:
            x = repeat_last_frame(x, lengths)
        missing = -x.shape[1] % self.factor
        if missing:
            x = torch.cat((x, x[:, -1:].expand(-1, missing, -1)), dim=1)
        groups = x.reshape(x.shape[0], -1, self.factor, x.shape[2])
        # The residual stream stays in its precision; autocast would make a half-precision product
        # of this.
        with torch.autocast(x.device.type, enabled=False):
            return torch.matmul(self.bias.softmax(dim=0).to(x.dtype), groups)


def repeat_last_frame(x: Tensor, lengths: Tensor) -> Tensor:
    """(N, T, C), (N,) -> (N, T, C) with every frame past an item's end replaced by its last valid
    frame.
    """
    index = (lengths - 1).clamp(min=0)
    last = x[torch.arange(x.shape[0], device=x.device), index].unsqueeze(1)
    past = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
    return torch.where(past[..., None], last, x)


def upsample(x: Tensor, factor: int) -> Tensor:
    """(N, T, C) -> (N, T * factor, C): every frame repeated."""
    n, t, c = x.shape
    return x.unsqueeze(2).expand(n, t, factor, c).reshape(n, t * factor, c)


def convert_channels(x: Tensor, num_channels: int) -> Tensor:
    """(..., C) -> (..., num_channels): keeps the first channels, or appends zeros."""
    if num_channels <= x.shape[-1]:
        return x[..., :num_channels]
    return F.pad(x, (0, num_channels - x.shape[-1]))


def full_dimension_output(outputs: Sequence[Tensor]) -> Tensor:
    """Outputs (N, T, D_i) of the stacks -> (N, T, max D_i): each channel from the last stack that
    has it.
    """
    pieces = [outputs[-1]]
    width = outputs[-1].shape[-1]
    for output in reversed(outputs[:-1]):
        if output.shape[-1] > width:
            pieces.append(output[..., width:])
            width = output.shape[-1]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)


class Bypass(StochasticModule):
    """x0 + (x - x0) * scale with a learned scale per channel.

    In training a sequence is skipped (scale 0) with probability `skip_rate`, and the gradient keeps
    the scale above a scheduled minimum and below 1.
    """

    scale_max = 1.0

    def __init__(self, dim: int, skip_rate: Rate | None = None) -> None:
        super().__init__()
        self.bypass_scale = nn.Parameter(torch.full((dim,), 0.5))
        self.skip_rate = Rate((0.0, 0.0)) if skip_rate is None else skip_rate
        self.scale_min = ScheduledFloat((0.0, 0.9), (20000.0, 0.2))

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """(N, T, D), (N, T, D) -> (N, T, D)"""
        dtype = torch.promote_types(x0.dtype, x.dtype)  # under autocast the two may differ
        return torch.lerp(x0.to(dtype), x.to(dtype), self._scale(x).to(dtype))

    def _scale(self, x: Tensor) -> Tensor:
        """(D) or, where sequences are skipped, (N, 1, D)"""
        scale: Tensor = self.bypass_scale
        if self.training:
            if self.randomness.decide(LIMIT_PARAM_PROBABILITY):
                scale = limit_param(scale, self.scale_min.value, self.scale_max)
            kept = self.keep_mask(self.skip_rate, (x.shape[0], 1, 1), x)
            if kept is not None:
                scale = scale * kept
        return scale
