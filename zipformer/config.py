"""Configuration of the encoder and the published model sizes.

    >>> ZipformerConfig.preset("captionstew").output_dim
    768

Sizes that may differ between stacks are tuples with one entry per stack; a single number (or a
tuple of one) is repeated.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

_PER_STACK = (
    "encoder_dim",
    "num_encoder_layers",
    "encoder_unmasked_dim",
    "query_head_dim",
    "pos_head_dim",
    "value_head_dim",
    "num_heads",
    "feedforward_dim",
    "cnn_module_kernel",
)


@dataclass(frozen=True)
class ZipformerConfig:
    """Sizes and options of one encoder. Raises ValueError for sizes that do not fit together.

    Attributes:
        downsampling_factor: frame-rate reduction inside each stack, relative to the frontend's 50
            frames per second.
        encoder_dim: channels of each stack.
        num_encoder_layers: layers of each stack.
        encoder_unmasked_dim: channels of each stack that the feature mask of training never
        touches. query_head_dim, pos_head_dim, value_head_dim: channels per head of queries and
        keys, of position queries, and
            of values.
        num_heads: attention heads of each stack.
        feedforward_dim: hidden size of the second of the three feed-forward modules; the others
            have 3/4 and 5/4.
        cnn_module_kernel: frames of the depthwise convolution, odd.
        pos_dim: channels of the relative positional encoding, even.
        output_downsampling_factor: reduction from 50 frames per second to the output; only 2 is
            defined.
        feature_dim: log-mel bands.
        frontend_channels: channels of the three convolutions of the frontend; the ConvNeXt block
            has the last one's.
        dropout: points (batch count, probability) of the dropout schedule.
        warmup_batches: batch count over which the layers are switched on one after the other.
        causal: chunk-wise attention and convolution.
        chunk_size: chunk lengths of causal models in frames at 50 Hz, one drawn per batch; -1 is
            the whole sequence.
        left_context_frames: left contexts of causal models, likewise; -1 is unlimited.
        batch_invariant: every clip gets the frames that it would get alone; False follows the
            original, where padding reaches the last valid frames.
        swoosh_backend: "torch", or "k2" for the kernels of the k2 library.
    """

    downsampling_factor: tuple[int, ...] = (1, 2, 4, 8, 4, 2)
    encoder_dim: tuple[int, ...] = (192, 256, 384, 512, 384, 256)
    num_encoder_layers: tuple[int, ...] = (2, 2, 3, 4, 3, 2)
    encoder_unmasked_dim: tuple[int, ...] = (192, 192, 256, 256, 256, 192)
    query_head_dim: tuple[int, ...] = (32,)
    pos_head_dim: tuple[int, ...] = (4,)
    value_head_dim: tuple[int, ...] = (12,)
    num_heads: tuple[int, ...] = (4, 4, 4, 8, 4, 4)
    feedforward_dim: tuple[int, ...] = (512, 768, 1024, 1536, 1024, 768)
    cnn_module_kernel: tuple[int, ...] = (31, 31, 15, 15, 15, 31)
    pos_dim: int = 48
    output_downsampling_factor: int = 2
    feature_dim: int = 80
    frontend_channels: tuple[int, int, int] = (8, 32, 128)
    dropout: tuple[tuple[float, float], ...] = ((0.0, 0.3), (20000.0, 0.1))
    warmup_batches: float = 4000.0
    causal: bool = False
    chunk_size: tuple[int, ...] = (-1,)
    left_context_frames: tuple[int, ...] = (-1,)
    batch_invariant: bool = False
    swoosh_backend: str = "torch"

    def __post_init__(self) -> None:
        factors = _as_tuple(self.downsampling_factor)
        object.__setattr__(self, "downsampling_factor", factors)
        for name in _PER_STACK:
            values = _as_tuple(getattr(self, name))
            if len(values) == 1:
                values = values * len(factors)
            if len(values) != len(factors):
                raise ValueError(
                    f"{name} has {len(values)} entries for {len(factors)} stacks: {values}"
                )
            object.__setattr__(self, name, values)
        for name in ("frontend_channels", "chunk_size", "left_context_frames"):
            object.__setattr__(self, name, _as_tuple(getattr(self, name)))
        object.__setattr__(self, "dropout", tuple((float(x), float(y)) for x, y in self.dropout))
        self._validate()

    @property
    def num_stacks(self) -> int:
        return len(self.downsampling_factor)

    @property
    def output_dim(self) -> int:
        """Channels of the encoder's output: those of the widest stack."""
        return max(self.encoder_dim)

    @property
    def frontend_bands(self) -> int:
        """Frequency bands that are left after the frontend's two strided convolutions."""
        return ((self.feature_dim - 1) // 2 - 1) // 2

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> ZipformerConfig:
        """Configuration of a published size (see `PRESETS`), with single fields replaced by
        `overrides`.
        """
        if name not in PRESETS:
            raise ValueError(f"unknown encoder preset {name!r}; choose one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **overrides})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ZipformerConfig:
        """Inverse of `to_dict`. Raises ValueError for unknown fields."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown fields in an encoder configuration: {', '.join(unknown)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, as JSON would give them back."""
        return {name: _as_list(value) for name, value in asdict(self).items()}

    def replace(self, **changes: Any) -> ZipformerConfig:
        return replace(self, **changes)

    def _validate(self) -> None:
        for name in (*_PER_STACK, "downsampling_factor", "frontend_channels"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"{name} must be positive: {getattr(self, name)}")
        if len(self.frontend_channels) != 3:
            raise ValueError(f"frontend_channels needs three numbers: {self.frontend_channels}")
        if self.frontend_bands < 1:
            raise ValueError(f"feature_dim must be at least 7: {self.feature_dim}")
        if any(kernel % 2 == 0 for kernel in self.cnn_module_kernel):
            raise ValueError(f"cnn_module_kernel must be odd: {self.cnn_module_kernel}")
        if any(u > d for u, d in zip(self.encoder_unmasked_dim, self.encoder_dim)):
            raise ValueError(
                f"encoder_unmasked_dim {self.encoder_unmasked_dim} exceeds encoder_dim"
                f" {self.encoder_dim}"
            )
        if self.pos_dim < 2 or self.pos_dim % 2:
            raise ValueError(f"pos_dim must be even: {self.pos_dim}")
        if self.output_downsampling_factor != 2:
            raise ValueError(
                f"output_downsampling_factor must be 2: {self.output_downsampling_factor}"
            )
        if self.swoosh_backend not in ("torch", "k2"):
            raise ValueError(f"swoosh_backend must be 'torch' or 'k2': {self.swoosh_backend!r}")
        if self.causal:
            self._validate_chunks()

    def _validate_chunks(self) -> None:
        for chunk in self.chunk_size:
            if chunk == -1:
                continue
            if chunk < 1 or any(chunk % factor for factor in self.downsampling_factor):
                raise ValueError(
                    f"chunk_size {chunk} is not divisible by all of {self.downsampling_factor}"
                )
            for frames in self.left_context_frames:
                context = chunk * left_context_chunks(chunk, frames)
                reach = max(
                    k // 2 * r for k, r in zip(self.cnn_module_kernel, self.downsampling_factor)
                )
                if frames != -1 and context < reach:
                    raise ValueError(
                        f"a left context of {context} frames (chunk_size {chunk},"
                        f" left_context_frames {frames}) is shorter than the {reach} frames that"
                        " the convolutions look back"
                    )


def left_context_chunks(chunk: int, frames: int) -> int:
    """Left context as a number of chunks, at least 1; -1 (unlimited) stays -1."""
    return -1 if frames == -1 else max(1, frames // chunk)


def _as_tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _as_list(value: Any) -> Any:
    return [_as_list(entry) for entry in value] if isinstance(value, tuple) else value


_LARGE_LAYERS = (2, 2, 4, 5, 4, 2)
_LARGE_DIMS = (192, 256, 512, 768, 512, 256)
_UNMASKED = (192, 192, 256, 256, 256, 192)

# small, medium and large are icefall's, auden-base and auden-large those of Auden, captionstew is
# the paper's encoder. mini is ours, to train on two CPU cores: at most 25 frames per second in the
# stacks, and a frontend that is small because pointwise work on its many bands would take longer
# than all the layers.
PRESETS: dict[str, dict[str, Any]] = {
    "mini": {
        "downsampling_factor": (2, 4, 8, 4),
        "encoder_dim": (96, 128, 256, 192),
        "num_encoder_layers": 1,
        "encoder_unmasked_dim": (64, 96, 128, 96),
        "query_head_dim": 16,
        "num_heads": 4,
        "feedforward_dim": (192, 256, 512, 384),
        "cnn_module_kernel": 15,
        "frontend_channels": (4, 8, 16),
    },
    "small": {
        "num_encoder_layers": 2,
        "encoder_dim": (192, 256, 256, 256, 256, 256),
        "feedforward_dim": (512, 768, 768, 768, 768, 768),
        "encoder_unmasked_dim": 192,
    },
    "medium": {},
    "large": {
        "num_encoder_layers": _LARGE_LAYERS,
        "encoder_dim": _LARGE_DIMS,
        "feedforward_dim": (512, 768, 1536, 2048, 1536, 768),
        "encoder_unmasked_dim": (192, 192, 256, 320, 256, 192),
    },
    "captionstew": {
        "encoder_dim": _LARGE_DIMS,
        "feedforward_dim": (576, 768, 1536, 2304, 1536, 768),
        "encoder_unmasked_dim": _UNMASKED,
    },
    "auden-base": {"feedforward_dim": (576, 768, 1152, 1536, 1152, 768)},
    "auden-large": {
        "num_encoder_layers": _LARGE_LAYERS,
        "encoder_dim": _LARGE_DIMS,
        "feedforward_dim": (576, 768, 1536, 2304, 1536, 768),
        "encoder_unmasked_dim": _UNMASKED,
    },
}
