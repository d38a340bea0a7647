"""Linear probes on cached clip vectors: many heads (learning rates x seeds) trained at once, the test set unseen.

N clips, D vector size, C classes, H heads.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class ProbeSettings:
    """Habits of EVAR and HEAR: standardised inputs, Adam, early stopping on validation, several seeds."""

    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    max_epochs: int = 200
    patience: int = 20
    batch_size: int = 128
    standardise: bool = True


@dataclass(frozen=True)
class Probe:
    """Chosen heads, one per seed, all at the learning rate that validation prefers."""

    mean: Tensor  # (D,) of the training vectors
    scale: Tensor  # (D,)
    weight: Tensor  # (seeds, D, C)
    bias: Tensor  # (seeds, 1, C)
    learning_rate: float
    valid_metric: list[float]  # per seed, at the head's best epoch

    def scores(self, x: Tensor) -> Tensor:
        """(N, D) -> logits (seeds, N, C)"""
        return torch.matmul((x - self.mean) / self.scale, self.weight) + self.bias

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Heads:
    """H linear classifiers with one Adam; head h has its own learning rate.

    Adam's step does not depend on the gradient's size, so head h is trained through V_h = W_h / lr_h with rate 1.
    """

    def __init__(self, dim: int, num_classes: int, rates: Tensor, seeds: Sequence[int]) -> None:
        self.rates = rates.view(-1, 1, 1)
        bound = 1.0 / math.sqrt(dim)
        weights = [
            torch.empty(dim + 1, num_classes).uniform_(-bound, bound, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        self.scaled = (torch.stack(weights) / self.rates).requires_grad_()
        self.optimizer = torch.optim.Adam([self.scaled], lr=1.0, eps=1e-20)

    def weight(self) -> Tensor:
        """Weights and, in the last row, biases (H, D+1, C), detached."""
        return (self.scaled * self.rates).detach()

    def scores(self, x: Tensor) -> Tensor:
        """(H, n, D) or (n, D) -> logits (H, n, C)"""
        weight = self.scaled * self.rates
        return torch.matmul(x, weight[:, :-1]) + weight[:, -1:]


def train_probe(
    train: tuple[Tensor, Tensor],
    valid: tuple[Tensor, Tensor],
    num_classes: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    metric: Callable[[np.ndarray, np.ndarray], float],
    settings: ProbeSettings,
) -> Probe:
    """Trains a head for every (learning rate, seed); validation picks each head's epoch, then the rate.

    Where the metric ties, as it often does on few clips, the lower validation loss wins.

    Args:
      train, valid: vectors (N, D) and targets (N,) classes or (N, C) zeros and ones.
      loss: logits (H, n, C), targets (H, n, ...) -> loss of each head (H,).
      metric: scores (N, C), targets -> number, higher is better.
    """
    mean, scale = _standardiser(train[0], settings.standardise)
    inputs, valid_inputs = (train[0] - mean) / scale, (valid[0] - mean) / scale
    grid = [(rate, seed) for rate in settings.learning_rates for seed in settings.seeds]
    heads = Heads(inputs.size(1), num_classes, torch.tensor([rate for rate, _ in grid]), [seed for _, seed in grid])
    shuffles = [torch.Generator().manual_seed(seed) for _, seed in grid]

    best = np.full(len(grid), -np.inf)
    best_loss = np.full(len(grid), np.inf)
    best_weight = heads.weight()
    since_best = np.zeros(len(grid), dtype=int)
    for _ in range(settings.max_epochs):
        _train_epoch(heads, inputs, train[1], shuffles, loss, settings.batch_size)
        weight, valid_scores = heads.weight(), heads.scores(valid_inputs).detach()
        valid_losses = loss(valid_scores, valid[1].expand(len(grid), *valid[1].shape)).numpy()
        for head, scores in enumerate(valid_scores.numpy()):
            value = metric(scores, valid[1].numpy())
            since_best[head] += 1
            if (value, -valid_losses[head]) > (best[head], -best_loss[head]) and since_best[head] <= settings.patience:
                best[head], best_loss[head] = value, valid_losses[head]
                since_best[head], best_weight[head] = 0, weight[head]
        if (since_best > settings.patience).all():
            break
    by_rate = best.reshape(len(settings.learning_rates), len(settings.seeds))
    loss_by_rate = best_loss.reshape(by_rate.shape)
    chosen = max(range(len(by_rate)), key=lambda rate: (by_rate[rate].mean(), -loss_by_rate[rate].mean()))
    rows = best_weight[chosen * len(settings.seeds) : (chosen + 1) * len(settings.seeds)]
    return Probe(mean, scale, rows[:, :-1], rows[:, -1:], settings.learning_rates[chosen], by_rate[chosen].tolist())


def _train_epoch(
    heads: Heads, inputs: Tensor, targets: Tensor, shuffles: list[torch.Generator], loss: Callable, batch_size: int
) -> None:
    order = torch.stack([torch.randperm(len(inputs), generator=generator) for generator in shuffles])  # (H, N)
    for rows in order.split(batch_size, dim=1):
        heads.optimizer.zero_grad()
        loss(heads.scores(inputs[rows]), targets[rows]).sum().backward()
        heads.optimizer.step()


def _standardiser(x: Tensor, enabled: bool) -> tuple[Tensor, Tensor]:
    """Mean and deviation (D,) of the training vectors; a constant channel is left at its size."""
    if not enabled:
        return torch.zeros(x.size(1)), torch.ones(x.size(1))
    deviation = x.std(0, correction=0)
    return x.mean(0), torch.where(deviation > 1e-8, deviation, torch.ones_like(deviation))


def cross_entropy_per_head(logits: Tensor, targets: Tensor) -> Tensor:
    """(H, n, C), (H, n) -> (H,)"""
    return F.cross_entropy(logits.transpose(1, 2), targets, reduction="none").mean(1)


def binary_cross_entropy_per_head(logits: Tensor, targets: Tensor) -> Tensor:
    """(H, n, C), (H, n, C) -> (H,)"""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((1, 2))
