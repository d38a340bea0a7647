"""The one place where the encoder draws random numbers.

Two kinds of draws: *decisions*, taken on the host once per call (does this Balancer act in this
batch?), and *uniform tensors* on the device (dropout masks). All modules of a model share one
`Randomness`; a test replaces it to force the decisions or to supply the tensors.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from zipformer.schedules import Rate, ScheduledModule

T = TypeVar("T")


class Randomness:
    """Decisions from an own generator on the host, tensors from torch's generator of the device.

    The host generator starts from torch's seed, so `torch.manual_seed` before building a model
    fixes it too. Its state can be taken and restored exactly; the state of torch's generators
    belongs to whoever saves the checkpoint.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(torch.initial_seed() if seed is None else seed)

    def decide(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random.random() < probability

    def choose(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely; a single option costs no draw."""
        return options[0] if len(options) == 1 else self._random.choice(options)

    def uniform(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """Numbers from [0, 1), float32, of the given shape."""
        return torch.rand(shape, device=device)

    def state(self) -> list:
        """State of the host generator as plain numbers and lists."""
        version, internal, gauss = self._random.getstate()
        return [version, list(internal), gauss]

    def load_state(self, state: list) -> None:
        """Continue from a state that `state` gave."""
        version, internal, gauss = state
        self._random.setstate((version, tuple(internal), gauss))


class StochasticModule(ScheduledModule):
    """A module with schedules that draws from the model's shared `randomness`."""

    # Serves modules that are built on their own; share_randomness gives every model one of its own.
    randomness: Randomness = Randomness(seed=0)

    def keep_mask(self, rate: Rate, shape: Sequence[int], like: Tensor) -> Tensor | None:
        """Mask (shape) with 1 where `u > rate` and 0 elsewhere; None (keep everything) where
        nothing is dropped.
        """
        if not self.training or rate.value == 0.0:
            return None
        return (self.randomness.uniform(shape, like.device) > rate.value).to(like.dtype)

    def dropout_mask(self, rate: Rate, shape: Sequence[int], like: Tensor) -> Tensor | None:
        """As `keep_mask`, but kept entries are 1 / (1 - rate)."""
        mask = self.keep_mask(rate, shape, like)
        return None if mask is None else mask.mul_(1.0 / (1.0 - rate.value))


class SharedDropout(StochasticModule):
    """Dropout of (..., T, C) whose mask (..., 1, C) is shared over time, or is elementwise."""

    def __init__(self, rate: Rate, shared_over_time: bool = True) -> None:
        super().__init__()
        self.p = rate
        self.shared_over_time = shared_over_time

    def forward(self, x: Tensor) -> Tensor:
        """(..., T, C) -> (..., T, C)"""
        shape = (*x.shape[:-2], 1, x.shape[-1]) if self.shared_over_time else x.shape
        mask = self.dropout_mask(self.p, shape, x)
        return x if mask is None else x * mask


def share_randomness(model: nn.Module, randomness: Randomness) -> None:
    """Let every module of a model draw from the same source."""
    for module in model.modules():
        if isinstance(module, StochasticModule):
            module.randomness = randomness


def draws(model: nn.Module) -> bool:
    """Whether the model holds modules of the encoder that draw random numbers."""
    return any(isinstance(module, StochasticModule) for module in model.modules())


def get_randomness(model: nn.Module) -> Randomness:
    """The source that a model's modules share. Raises ValueError if the model does not draw at
    all.
    """
    for module in model.modules():
        if isinstance(module, StochasticModule):
            return module.randomness
    raise ValueError(
        f"{type(model).__name__} holds no module of the encoder that draws random numbers"
    )
