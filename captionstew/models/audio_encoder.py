"""What the models of the objectives ask of their audio side: a Zipformer, or what stands there."""

from typing import Protocol, TypeVar

from torch import Tensor


class AudioEncoder(Protocol):
    """A module that encodes features; `output_dim` counts the channels of its frames."""

    @property
    def output_dim(self) -> int: ...

    def __call__(self, features: Tensor, lengths: Tensor, /) -> tuple[Tensor, Tensor]:
        """(B, T, F), (B,) -> frames (B, T', output_dim), lengths (B,)"""


EncoderT = TypeVar("EncoderT", bound=AudioEncoder)
