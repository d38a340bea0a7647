"""An encoder and a classifier of clips, trained together (paper Table 7). B clips, D channels, C
classes.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captionstew.checkpoint import StateDict, load_weights
from captionstew.models.heads import AttentionHead, Head, LinearHead
from captionstew.models.pooling import mean_pool
from zipformer import Zipformer, ZipformerConfig


class ClipClassifier(nn.Module):
    """Zipformer, mean or attention pooling, linear layer: the heads are those of the probes."""

    def __init__(
        self, encoder: Zipformer, num_classes: int, pooling: str, num_attention_heads: int
    ) -> None:
        super().__init__()
        self.encoder = encoder
        if pooling == "attention":
            self.shape: Head = AttentionHead(encoder.output_dim, num_classes, num_attention_heads)
        else:
            self.shape = LinearHead(encoder.output_dim, num_classes)
        self.attends = pooling == "attention"
        weights = self.shape.initial(torch.default_generator)
        self.head = nn.ParameterDict({name: nn.Parameter(value) for name, value in weights.items()})

    def forward(self, features: Tensor, feature_lengths: Tensor) -> Tensor:
        """(B, T, 80), (B,) -> logits (B, C)"""
        frames, lengths = self.encoder(features, feature_lengths)
        inputs = (frames, lengths) if self.attends else (mean_pool(frames, lengths),)
        return self.shape.scores(
            {name: value.unsqueeze(0) for name, value in self.head.items()}, *inputs
        )[0]


def classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, C), (B,) classes or (B, C) zeros and ones -> cross entropy, or binary cross entropy
    summed over classes; both summed over clips. Target -1, a class that is not of the list, does
    not count.
    """
    if targets.dim() == 1:
        return F.cross_entropy(logits.float(), targets, ignore_index=-1, reduction="sum")
    return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum")


def build_classifier(config: dict[str, Any]) -> ClipClassifier:
    """The model that a checkpoint's `config` describes, with new weights."""
    encoder = Zipformer(ZipformerConfig.from_dict(config["encoder"]))
    return ClipClassifier(
        encoder, len(config["classes"]), config["pooling"], config["attention_heads"]
    )


def load_classifier(config: dict[str, Any], weights: StateDict, source: Path) -> ClipClassifier:
    """The trained model in evaluation mode, every clip's logits independent of its batch.

    Raises:
      CheckpointError: the weights do not fit the configuration.
    """
    encoder = ZipformerConfig.from_dict(config["encoder"]).replace(batch_invariant=True)
    model = build_classifier(config | {"encoder": encoder.to_dict()})
    load_weights(model, weights, source)
    return model.eval()
