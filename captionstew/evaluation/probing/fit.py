"""Training of linear probes: heads for a grid of learning rates and seeds at once, the test set
unseen.

H heads (learning rates x seeds), n clips of a batch, C classes, T frames. What a probe is trained
on comes from a `Clips`; what a head is stands in captionstew.models.heads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from captionstew.evaluation.probing.progress import Progress
from captionstew.models.heads import Head, Weights, head_from_dict, head_to_dict

PADDING_TARGET = -1.0  # target of the frames beyond a clip's length
MAX_SCORES = (
    1 << 26
)  # logits (heads x clips x frames x classes) held at a time; larger batches go in pieces


@dataclass(frozen=True)
class ProbeSettings:
    """Habits of EVAR and HEAR: standardised inputs, Adam, early stopping on validation, several
    seeds.
    """

    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    max_epochs: int = 200
    patience: int = 20
    valid_every: int = 1
    batch_size: int = 128
    standardise: bool = True
    max_steps: int = 0  # of each stack of heads; 0: no limit


class Clips(Protocol):
    """What heads are trained or scored on.

    Attributes:
      in_memory: a batch costs next to nothing, so every seed can have its own order of clips.
      frames_per_clip: rows of logits that a clip has; 1 unless every frame is classified.
    """

    in_memory: bool
    frames_per_clip: int

    def __len__(self) -> int: ...

    def batch(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Positions (n,) -> the head's inputs, the first of them (n, ..., D), and targets (n,
        ...).
        """

    def batches(self, parts: Sequence[Tensor]) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """`batch` of each, in order; made ahead where that takes time."""

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation (D,) of the inputs."""


class HeadMetric(Protocol):
    """A metric of H heads, higher is better, from batches of scores."""

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """(H, n, ...), (n, ...)"""

    def values(self) -> np.ndarray:
        """-> (H,)"""


Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Probe:
    """Chosen heads, one per seed, all at the learning rate that validation prefers."""

    head: Head
    mean: Tensor  # (D,) of the training inputs
    scale: Tensor  # (D,)
    weights: Weights  # first axis: seeds
    learning_rate: float
    valid_metric: list[float]  # per seed, at the head's best epoch
    valid_loss: list[float]

    @property
    def num_seeds(self) -> int:
        return len(self.valid_metric)

    @property
    def num_parameters(self) -> int:
        """Trained numbers of one head."""
        return sum(value[0].numel() for value in self.weights.values())

    @torch.no_grad()
    def scores(self, x: Tensor, *rest: Tensor, seed: int | None = None) -> Tensor:
        """The head's inputs, (N, D) or (N, T, D) and lengths (N,) -> logits (seeds, N, C) or
        (seeds, N, T, C)

        With `seed` those of one head only, as the first and only one.
        """
        chosen = slice(None) if seed is None else slice(seed, seed + 1)
        weights = {name: value[chosen] for name, value in self.weights.items()}
        return self.head.scores(weights, (x - self.mean) / self.scale, *rest)

    def to(self, device: torch.device | str) -> "Probe":
        weights = {name: value.to(device) for name, value in self.weights.items()}
        return Probe(
            self.head, self.mean.to(device), self.scale.to(device), weights, self.learning_rate,
            self.valid_metric, self.valid_loss,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {"head": head_to_dict(self.head)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Probe":
        return cls(**content | {"head": head_from_dict(content["head"])})


class Heads:
    """H copies of a head with one Adam; copy h has its own learning rate.

    Adam's step does not depend on the gradient's size, so copy h is trained through V_h = W_h /
    lr_h with rate 1.
    """

    def __init__(
        self,
        head: Head,
        rates: Sequence[float],
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> None:
        self.head = head
        self.rates = torch.tensor(rates, device=device)
        initial = [head.initial(torch.Generator().manual_seed(seed)) for seed in seeds]
        self.scaled = {
            name: (
                torch.stack([one[name] for one in initial]).to(device)
                / self._rates(initial[0][name].dim() + 1)
            )
            for name in initial[0]
        }
        self._start_optimizer({})

    def __len__(self) -> int:
        return len(self.rates)

    def _rates(self, dims: int) -> Tensor:
        return self.rates.view(-1, *[1] * (dims - 1))

    def _start_optimizer(self, state: dict[str, dict[str, Tensor]]) -> None:
        self.scaled = {name: value.detach().requires_grad_() for name, value in self.scaled.items()}
        self.optimizer = torch.optim.Adam(self.scaled.values(), lr=1.0, eps=1e-20, fused=True)
        for name, moments in state.items():
            self.optimizer.state[self.scaled[name]] = moments

    def weights(self) -> Weights:
        """First axis: heads."""
        return {name: value * self._rates(value.dim()) for name, value in self.scaled.items()}

    def scores(self, *inputs: Tensor) -> Tensor:
        """The head's inputs -> logits (H, n, ...)"""
        return self.head.scores(self.weights(), *inputs)

    def keep(self, rows: Tensor) -> None:
        """Goes on with these copies only (positions (h,)); they train as they would have with the
        others.
        """
        state = {
            name: {
                key: moment[rows] if moment.dim() else moment
                for key, moment in self.optimizer.state[value].items()
            }
            for name, value in self.scaled.items()
        }
        self.rates = self.rates[rows]
        self.scaled = {name: value.detach()[rows] for name, value in self.scaled.items()}
        self._start_optimizer(state)

    def state(self) -> dict[str, Any]:
        """All that training goes on from."""
        moments = {name: self.optimizer.state[value] for name, value in self.scaled.items()}
        scaled = {name: value.detach() for name, value in self.scaled.items()}
        return {"rates": self.rates, "scaled": scaled, "moments": moments}

    def load_state(self, state: dict[str, Any]) -> None:
        device = self.rates.device
        self.rates = state["rates"].to(device)
        self.scaled = {name: value.to(device) for name, value in state["scaled"].items()}
        self._start_optimizer(
            {
                name: {key: value.to(device) for key, value in moments.items()}
                for name, moments in state["moments"].items()
            }
        )


def train_probe(
    head: Head,
    train: Clips,
    valid: Clips,
    loss: Loss,
    metric: Callable[[], HeadMetric],
    settings: ProbeSettings,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Probe:
    """Trains a head for every (learning rate, seed); validation picks each head's epoch, then the
    rate.

    Where the metric ties, as it often does on few clips, the lower validation loss wins. Every seed
    has its own initial weights and, where clips are in memory, its own order of clips.

    Args:
      loss: logits (H, n, ...), targets (n, ...) -> loss of each head (H,).
      metric: makes an empty metric.
      progress: where a killed training left off; gone on from there, with the same result.
    """
    mean, scale = _standardiser(train, settings.standardise)
    fit = _Fit(
        head, train, valid, loss, metric, settings, mean.to(device), scale.to(device), device
    )
    together = [[seed] for seed in settings.seeds] if train.in_memory else [list(settings.seeds)]
    state = progress.load() if progress else None
    bests = [_Best.from_state(one) for one in state["finished"]] if state else []
    for seeds in together[len(bests) :]:
        bests.append(fit.run(seeds, state and state["current"], progress, bests))
        state = None
    shape = (len(settings.learning_rates), -1)
    values = np.concatenate(
        [best.metric.reshape(shape) for best in bests], axis=1
    )  # (rates, seeds)
    losses = np.concatenate([best.loss.reshape(shape) for best in bests], axis=1)
    chosen = max(range(len(values)), key=lambda rate: (values[rate].mean(), -losses[rate].mean()))
    weights = {
        name: torch.cat([best.weights[name].unflatten(0, shape)[chosen] for best in bests]).cpu()
        for name in bests[0].weights
    }
    rate = settings.learning_rates[chosen]
    return Probe(head, mean, scale, weights, rate, values[chosen].tolist(), losses[chosen].tolist())


@dataclass
class _Best:
    """The best state so far of each of H heads."""

    weights: Weights
    metric: np.ndarray  # (H,)
    loss: np.ndarray  # (H,)
    epoch: np.ndarray  # (H,)

    def state(self) -> dict[str, Any]:
        arrays = {
            name: torch.from_numpy(getattr(self, name)) for name in ("metric", "loss", "epoch")
        }
        return {"weights": self.weights} | arrays

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "_Best":
        return cls(state["weights"], *(state[name].numpy() for name in ("metric", "loss", "epoch")))


@dataclass(frozen=True)
class _Fit:
    """What all stacks of heads are trained on."""

    head: Head
    train: Clips
    valid: Clips
    loss: Loss
    metric: Callable[[], HeadMetric]
    settings: ProbeSettings
    mean: Tensor
    scale: Tensor
    device: torch.device | str

    def run(
        self,
        seeds: Sequence[int],
        state: dict[str, Any] | None,
        progress: Progress | None,
        finished: Sequence[_Best],
    ) -> _Best:
        """Heads for all rates and these seeds, in the order of rates; each stops when its patience
        is at an end. From `state` on, if there is one; `finished` is kept beside it.
        """
        settings = self.settings
        grid = [(rate, seed) for rate in settings.learning_rates for seed in seeds]
        heads = Heads(
            self.head, [rate for rate, _ in grid], [seed for _, seed in grid], self.device
        )
        count = len(grid)
        best = _Best(
            {name: value.detach().clone() for name, value in heads.weights().items()},
            np.full(count, -np.inf), np.full(count, np.inf), np.zeros(count, dtype=int),
        )  # fmt: skip
        alive = np.arange(count)  # grid positions of the heads that still train
        shuffle = torch.Generator().manual_seed(seeds[0])
        epoch, step = 0, 0
        if state is not None:
            heads.load_state(state["heads"])
            best = _Best.from_state(state["best"])
            best.weights = {name: value.to(self.device) for name, value in best.weights.items()}
            alive = state["alive"].numpy()
            shuffle.set_state(state["shuffle"])
            epoch, step = state["epoch"], state["step"]
        last = False
        while not last:
            epoch += 1
            order = torch.randperm(len(self.train), generator=shuffle).split(settings.batch_size)
            if settings.max_steps:
                order = order[: settings.max_steps - step]
            self._train_epoch(heads, order)
            step += len(order)
            last = epoch >= settings.max_epochs or 0 < settings.max_steps <= step
            if epoch % settings.valid_every and not last:
                continue
            self._note_better(best, heads, alive, epoch)
            going_on = epoch - best.epoch[alive] < settings.patience
            if not going_on.any():
                break
            if not going_on.all():
                heads.keep(torch.from_numpy(np.flatnonzero(going_on)).to(self.device))
                alive = alive[going_on]
            if progress is not None and progress.due() and not last:
                current = {
                    "heads": heads.state(),
                    "best": best.state(),
                    "alive": torch.from_numpy(alive),
                    "shuffle": shuffle.get_state(),
                    "epoch": epoch,
                    "step": step,
                }
                progress.save({"finished": [one.state() for one in finished], "current": current})
        return best

    def _train_epoch(self, heads: Heads, order: Sequence[Tensor]) -> None:
        """One step of every head for each set of positions; large ones go in pieces."""
        size = self._piece(len(heads))
        pieces = [(part, len(rows)) for rows in order for part in rows.split(size)]
        batches = self.train.batches([part for part, _ in pieces])
        done = 0
        heads.optimizer.zero_grad()
        for (part, whole), batch in zip(pieces, batches, strict=True):
            inputs, targets = self._on_device(batch)
            (self.loss(heads.scores(*inputs), targets).sum() * (len(part) / whole)).backward()
            done += len(part)
            if done == whole:
                heads.optimizer.step()
                heads.optimizer.zero_grad()
                done = 0

    @torch.no_grad()
    def _note_better(self, best: _Best, heads: Heads, alive: np.ndarray, epoch: int) -> None:
        """Validates; heads that are better than ever leave their weights in `best`."""
        weights, metric = heads.weights(), self.metric()
        losses = torch.zeros(len(heads), dtype=torch.float64)
        size = self._piece(len(heads), self.settings.batch_size * 8)
        parts = torch.arange(len(self.valid)).split(size)
        for part, batch in zip(parts, self.valid.batches(parts), strict=True):
            inputs, targets = self._on_device(batch)
            scores = self.head.scores(weights, *inputs)
            metric.update(scores, targets)
            losses += self.loss(scores, targets).double().cpu() * len(part) / len(self.valid)
        values = metric.values()
        for row, place in enumerate(alive):
            if (values[row], -losses[row].item()) > (best.metric[place], -best.loss[place]):
                best.metric[place], best.loss[place], best.epoch[place] = (
                    values[row],
                    losses[row].item(),
                    epoch,
                )
                for name, value in weights.items():
                    best.weights[name][place] = value[row]

    def _on_device(self, batch: tuple[tuple[Tensor, ...], Tensor]) -> tuple[list[Tensor], Tensor]:
        """Standardised inputs and targets on the device."""
        (x, *rest), targets = batch
        x = (x.to(self.device) - self.mean) / self.scale
        return [x, *(one.to(self.device) for one in rest)], targets.to(self.device)

    def _piece(self, num_heads: int, most: int = 1 << 30) -> int:
        """Clips whose logits may be held at a time."""
        per_clip = num_heads * self.train.frames_per_clip * self.head.num_classes
        return max(1, min(most, MAX_SCORES // per_clip))


def _standardiser(clips: Clips, enabled: bool) -> tuple[Tensor, Tensor]:
    """Mean and deviation (D,) of the training inputs; a constant channel is left at its size."""
    mean, deviation = clips.statistics()
    if not enabled:
        return torch.zeros_like(mean), torch.ones_like(deviation)
    return mean, torch.where(deviation > 1e-8, deviation, torch.ones_like(deviation))


def cross_entropy_per_head(logits: Tensor, targets: Tensor) -> Tensor:
    """(H, n, C), (n,) -> (H,); target -1, a class no head knows, does not count."""
    each = F.cross_entropy(
        logits.flatten(0, 1), targets.repeat(len(logits)), ignore_index=-1, reduction="none"
    )
    return each.view(len(logits), -1).mean(1)


def binary_cross_entropy_per_head(logits: Tensor, targets: Tensor) -> Tensor:
    """(H, n, C), (n, C) -> (H,)"""
    each = F.binary_cross_entropy_with_logits(logits, targets.expand_as(logits), reduction="none")
    return each.flatten(1).mean(1)


def frame_binary_cross_entropy_per_head(logits: Tensor, targets: Tensor) -> Tensor:
    """(H, n, T, C), (n, T, C) -> (H,); targets are PADDING_TARGET beyond a clip's frames, which do
    not count.
    """
    valid = (targets[..., 0] != PADDING_TARGET).unsqueeze(-1)  # (n, T, 1)
    known = targets.clamp(min=0.0).expand_as(logits)
    each = F.binary_cross_entropy_with_logits(logits, known, reduction="none") * valid
    return each.flatten(1).sum(1) / (valid.sum() * targets.size(-1))
