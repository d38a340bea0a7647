"""What the modules of a stack need to know about the frames of a batch: padding, allowed attention,
chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frames:
    """Frames of a batch at one frame rate.

    Attributes:
        padding: (N, T) bool, True at frames past an item's end; None if there are none.
        blocked: (T, T) bool as (query, key), True where attention is not allowed; None if all is
            allowed.
        chunk_size: frames per chunk of a causal model; -1 is the whole sequence.
        lengths: (N,) frames of each item, given only where modules have to keep every item apart
            from its padding (`batch_invariant`); None otherwise.
    """

    padding: Tensor | None = None
    blocked: Tensor | None = None
    chunk_size: int = -1
    lengths: Tensor | None = None

    def downsampled(self, factor: int) -> Frames:
        """The same at 1/factor of the rate: a frame is padding exactly if the first of those that
        it stands for is.
        """
        return Frames(
            padding=None if self.padding is None else self.padding[:, ::factor],
            blocked=None if self.blocked is None else self.blocked[::factor, ::factor],
            chunk_size=self.chunk_size if self.chunk_size < 0 else self.chunk_size // factor,
            lengths=None if self.lengths is None else (self.lengths + factor - 1) // factor,
        )


def padding_mask(lengths: Tensor, num_frames: int, device: torch.device) -> Tensor | None:
    """(N,) -> (N, T) bool, True at padding; None if lengths are on the CPU and say that there is
    none.
    """
    if lengths.device.type == "cpu" and bool((lengths >= num_frames).all()):
        return None
    lengths = lengths.to(device, non_blocking=True)
    return torch.arange(num_frames, device=device) >= lengths[:, None]


def chunk_mask(num_frames: int, chunk: int, left_chunks: int, device: torch.device) -> Tensor:
    """(T, T) bool as (query, key), True where the key's chunk is later than the query's or too far
    before it.

    left_chunks is the number of chunks to look back; -1 is unlimited.
    """
    index = torch.arange(num_frames, device=device) // chunk
    ahead = index - index[:, None]
    blocked = ahead > 0
    return blocked if left_chunks < 0 else blocked | (ahead < -left_chunks)
