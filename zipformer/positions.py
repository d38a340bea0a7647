"""Relative positional encoding (Zipformer's compact form)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zipformer.randomness import StochasticModule
from zipformer.schedules import constant_rate


def relative_positions(num_frames: int, dim: int, precision: torch.dtype = torch.float64) -> Tensor:
    """(2 T - 1, P) float32: row j encodes the offset o = j - (T - 1), key index minus query index.

    With c = sqrt(P), offsets are compressed logarithmically and mapped to an angle:

        kappa(o) = c sign(o) (ln(|o| + c) - ln c)       theta(o) = atan(2 pi kappa(o) / P)
        E[o, 2k-2] = cos(k theta),  E[o, 2k-1] = sin(k theta)  for k = 1 .. P/2,  E[o, P-1] = 1
    """
    offset = torch.arange(-(num_frames - 1), num_frames).to(precision)
    compression = math.sqrt(dim)
    kappa = (
        compression * offset.sign() * ((offset.abs() + compression).log() - math.log(compression))
    )
    theta = torch.atan(kappa * (2.0 * math.pi / dim))
    angles = theta[:, None] * torch.arange(1, dim // 2 + 1, dtype=precision)
    encoding = torch.stack((angles.cos(), angles.sin()), dim=-1).flatten(1)
    encoding[:, -1] = 1.0
    return encoding.float()


class RelativePositions(StochasticModule):
    """Slices the encoding of T frames out of a table that grows with the longest input seen;
    dropout in training.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.dropout = constant_rate(0.15)
        self._table = relative_positions(1, dim)

    def forward(self, num_frames: int, device: torch.device) -> Tensor:
        """(2 T - 1, P)"""
        longest = (self._table.shape[0] + 1) // 2
        if num_frames > longest:
            longest = max(num_frames, 2 * longest)
            self._table = relative_positions(longest, self.dim).to(device)
        elif self._table.device != device:
            self._table = self._table.to(device)
        encoding = self._table[longest - num_frames : longest + num_frames - 1]
        mask = self.dropout_mask(self.dropout, encoding.shape, encoding)
        return encoding if mask is None else encoding * mask
