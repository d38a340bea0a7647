"""The encoder with a tagging head: one logit per class and clip, as icefall's AudioSet recipe has
it.
"""

from __future__ import annotations

from torch import Tensor, nn

from zipformer.config import ZipformerConfig
from zipformer.model import Zipformer
from zipformer.randomness import SharedDropout, get_randomness, share_randomness
from zipformer.schedules import constant_rate
from zipformer.sequences import padding_mask


class TaggingHead(nn.Sequential):
    """Dropout and linear layer per frame, averaged over each clip's frames; state-dict keys
    `1.weight`, `1.bias`.
    """

    def __init__(self, dim: int, num_classes: int, dropout: float = 0.1) -> None:
        super().__init__(
            SharedDropout(constant_rate(dropout), shared_over_time=False),
            nn.Linear(dim, num_classes),
        )

    # A Sequential for its state-dict keys alone.
    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T', D), (B,) -> (B, classes) logits"""
        logits = super().forward(frames)
        padding = padding_mask(lengths, logits.shape[1], logits.device)
        if padding is not None:
            logits = logits.masked_fill(padding[..., None], 0.0)
        return logits.sum(dim=1) / lengths.to(logits.device)[:, None]


class AudioTagger(Zipformer):
    """Encoder and head in one module, so that icefall's tagging checkpoints load strictly."""

    def __init__(self, config: ZipformerConfig, num_classes: int) -> None:
        super().__init__(config)
        self.classifier = TaggingHead(config.output_dim, num_classes)
        share_randomness(self, get_randomness(self))

    # An encoder for its state-dict keys; what an encoder gives comes from `encode`.
    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T, 80), (B,) -> (B, classes) logits"""
        return self.classifier(*self.encode(features, lengths))

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 80), (B,) -> (B, T', output_dim), (B,): the encoder alone"""
        return super().forward(features, lengths)
