"""What the loop expects of a recipe: an objective and batches."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from captionstew.data.batches.sampling import EpochBatches
from captionstew.models.losses import Losses


class Task(Protocol):
    """An objective. `config` is all that evaluation needs to rebuild the model; it is saved in
    every checkpoint.

    A task may also have

        samples() -> [(cut id, caption, hypothesis)]

    which shows what the model wrote about a few clips of the validation just done. It is called on
    rank 0 alone.
    """

    config: dict[str, Any]

    def losses(self, model: nn.Module, batch: dict[str, Any], device: torch.device) -> Losses:
        """One forward pass in training mode."""

    def validate(
        self, model: nn.Module, batches: Iterable[dict[str, Any]], device: torch.device
    ) -> dict[str, float]:
        """Metrics on the validation data; called on every rank with the unwrapped model in
        evaluation mode.
        """


class TrainingData(Protocol):
    """Batches as captionstew.data.batches.dataset makes them, and `position`, plain values: the
    place after the batch.
    """

    sampler: EpochBatches

    def train_batches(
        self, epoch: int, position: dict[str, Any] | None
    ) -> Iterator[dict[str, Any]]:
        """The batches of an epoch, from its start or from after the batch with the given
        position.
        """

    def batch_of(self, positions: Sequence[int]) -> dict[str, Any]:
        """The training batch of the cuts at these positions of the sampler's cuts, made in this
        process.
        """

    def valid_batches(self) -> Iterable[dict[str, Any]]:
        """Validation batches of this rank, the same every time."""
