"""What the loop expects of a recipe: an objective and batches.

A recipe's own classes satisfy these protocols by having the members; none inherits from them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from captionstew.data.batches.dataset import Batch
from captionstew.data.batches.sampling import Clips, SamplerSettings
from captionstew.data.tokenizer import Tokenizer
from captionstew.models.losses import Losses

ModelT = TypeVar("ModelT", bound=nn.Module)
ModelT_contra = TypeVar("ModelT_contra", bound=nn.Module, contravariant=True)


class Task(Protocol[ModelT_contra]):
    """An objective. `config` is all that evaluation needs to rebuild the model; it is saved in
    every checkpoint.

    A task may also be a HasTokenizer and a ShowsSamples.
    """

    config: dict[str, Any]

    def losses(self, model: nn.Module, batch: Batch, device: torch.device) -> Losses:
        """One forward pass in training mode, through the model or what shares its gradients with
        other processes.
        """

    def validate(
        self, model: ModelT_contra, batches: Iterable[Batch], device: torch.device
    ) -> dict[str, float]:
        """Metrics on the validation data; called on every rank with the unwrapped model in
        evaluation mode.
        """


@runtime_checkable
class ShowsSamples(Protocol):
    """A task that shows what the model wrote about a few clips of the validation just done."""

    def samples(self) -> Sequence[tuple[str, str, str]]:
        """(cut id, caption, hypothesis) of each; called on rank 0 alone."""


@runtime_checkable
class HasTokenizer(Protocol):
    """A task whose captions are cut to --max-caption-tokens."""

    tokenizer: Tokenizer


class TrainingSampler(Protocol):
    """Which clips share a batch; captionstew.data.batches.sampling.EpochBatches is one."""

    @property
    def cuts(self) -> Clips: ...

    @property
    def settings(self) -> SamplerSettings: ...

    @property
    def expected_batches(self) -> int:
        """About how many batches an epoch has on each rank."""

    def heaviest(self) -> Mapping[str, Sequence[int]]:
        """Positions of the batches that need most memory, by what is most about them."""


class TrainingData(Protocol):
    """Batches as captionstew.data.batches.dataset makes them, and `position`, plain values: the
    place after the batch.
    """

    @property
    def sampler(self) -> TrainingSampler: ...

    def train_batches(self, epoch: int, position: dict[str, Any] | None) -> Iterator[Batch]:
        """The batches of an epoch, from its start or from after the batch with the given
        position.
        """

    def batch_of(self, positions: Sequence[int]) -> Batch:
        """The training batch of the cuts at these positions of the sampler's cuts, made in this
        process.
        """

    def valid_batches(self) -> Iterable[Batch]:
        """Validation batches of this rank, the same every time."""
