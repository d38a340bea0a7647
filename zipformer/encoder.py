"""The encoder proper: stacks of layers at several frame rates, joined into one output at 25 frames
per second.

Sizes: N batch, T frames at 50 Hz, D_i channels of stack i.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zipformer.config import ZipformerConfig, left_context_chunks
from zipformer.layer import EncoderLayer
from zipformer.positions import RelativePositions
from zipformer.randomness import StochasticModule
from zipformer.resampling import (
    Bypass,
    Downsample,
    convert_channels,
    full_dimension_output,
    upsample,
)
from zipformer.schedules import Rate, constant_rate
from zipformer.sequences import Frames, chunk_mask, padding_mask


def layer_skip_rates(config: ZipformerConfig, stack: int) -> list[Rate]:
    """One schedule per layer: before its turn in the warm-up a layer is skipped for half of the
    sequences.
    """
    begin, end = (config.warmup_batches * (stack + k) / (config.num_stacks + 1) for k in (1.0, 2.0))
    step = (end - begin) / config.num_encoder_layers[stack]
    final = 0.035 * math.sqrt(config.downsampling_factor[stack])
    return [
        Rate((begin + layer * step, 0.5), (begin + (layer + 1) * step, final))
        for layer in range(config.num_encoder_layers[stack])
    ]


class Stack(nn.Module):
    """Layers at one frame rate."""

    def __init__(self, config: ZipformerConfig, stack: int) -> None:
        super().__init__()
        self.encoder_pos = RelativePositions(config.pos_dim)
        self.layers = nn.ModuleList(
            EncoderLayer(config, stack, rate) for rate in layer_skip_rates(config, stack)
        )

    def forward(self, x: Tensor, frames: Frames, feature_mask: Tensor | None = None) -> Tensor:
        """(N, T, D), feature_mask (N, 1, D) -> (N, T, D)"""
        positions = self.encoder_pos(x.shape[1], x.device)
        if feature_mask is not None:
            x = x * feature_mask
        for layer in self.layers:
            x = layer(x, positions, frames)
            if feature_mask is not None:
                x = x * feature_mask
        return x


class DownsampledStack(nn.Module):
    """A stack that runs at a lower frame rate, with a bypass around it."""

    def __init__(self, config: ZipformerConfig, stack: int) -> None:
        super().__init__()
        self.factor = config.downsampling_factor[stack]
        self.downsample = Downsample(self.factor)
        self.encoder = Stack(config, stack)
        self.out_combiner = Bypass(config.encoder_dim[stack])

    def forward(self, x: Tensor, frames: Frames, feature_mask: Tensor | None = None) -> Tensor:
        """(N, T, D) -> (N, T, D)"""
        low = self.encoder(
            self.downsample(x, frames.lengths), frames.downsampled(self.factor), feature_mask
        )
        return self.out_combiner(x, upsample(low, self.factor)[:, : x.shape[1]])


class ZipformerEncoder(StochasticModule):
    """All stacks and the output at half the frame rate."""

    def __init__(self, config: ZipformerConfig) -> None:
        super().__init__()
        self.config = config
        self.batch_invariant = config.batch_invariant
        self.feature_mask_rate = constant_rate(0.125)
        self.encoders = nn.ModuleList(
            (Stack if factor == 1 else DownsampledStack)(config, stack)
            for stack, factor in enumerate(config.downsampling_factor)
        )
        self.downsample_output = Downsample(config.output_downsampling_factor)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, D_0), (N,) -> (N, ceil(T / 2), max D_i), (N,)"""
        frames = self._frames(x, lengths)
        masks = self._feature_masks(x)
        outputs: list[Tensor] = []
        for stack, mask in zip(self.encoders, masks):
            dim = self.config.encoder_dim[len(outputs)]
            x = stack(convert_channels(x, dim), frames, mask)
            outputs.append(x)
        x = self.downsample_output(full_dimension_output(outputs), frames.lengths)
        return x, (lengths + 1) // 2

    def _frames(self, x: Tensor, lengths: Tensor) -> Frames:
        padding = padding_mask(lengths, x.shape[1], x.device)
        apart = self.batch_invariant and padding is not None
        chunk, blocked = self._chunks(x.shape[1], x.device)
        return Frames(padding, blocked, chunk, lengths.to(x.device) if apart else None)

    def _chunks(self, num_frames: int, device: torch.device) -> tuple[int, Tensor | None]:
        """Chunk size and left context drawn for this batch, as (chunk size, attention mask)."""
        if not self.config.causal:
            return -1, None
        chunk = self.randomness.choose(self.config.chunk_size)
        if chunk == -1:
            return -1, None
        left = left_context_chunks(chunk, self.randomness.choose(self.config.left_context_frames))
        return chunk, chunk_mask(num_frames, chunk, left, device)

    def _feature_masks(self, x: Tensor) -> list[Tensor | None]:
        """(N, 1, D_i) per stack, or None: some sequences lose a part of their upper channels, in
        all stacks alike.
        """
        shape = (x.shape[0], 1, 1)
        first = self.keep_mask(self.feature_mask_rate, shape, x)
        more = self.keep_mask(self.feature_mask_rate, shape, x)
        if first is None or more is None:
            return [None] * len(self.encoders)
        return [
            feature_mask(first, first * more, dim, unmasked)
            for dim, unmasked in zip(self.config.encoder_dim, self.config.encoder_unmasked_dim)
        ]


def feature_mask(first: Tensor, second: Tensor, dim: int, unmasked: int) -> Tensor:
    """(N, 1, 1), (N, 1, 1) -> (N, 1, dim): ones, then `first` on half of the maskable channels,
    `second` on the rest
    """
    half = unmasked + (dim - unmasked) // 2
    parts = (torch.ones_like(first), unmasked), (first, half - unmasked), (second, dim - half)
    return torch.cat([value.expand(-1, -1, width) for value, width in parts], dim=-1)
