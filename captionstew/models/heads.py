"""The classifiers that probe a frozen encoder, in stacks: H copies of one head score a batch in one
pass.

A head is only a shape; its weights are a dict of tensors whose first axis counts the copies. N
clips, T frames, D channels, C classes, A attention heads.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from captionstew.models.pooling import attention_pool

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class _LinearLayer:
    """A linear layer's shape and first weights."""

    dim: int
    num_classes: int

    def initial(self, generator: torch.Generator) -> Weights:
        """Weights of one copy, drawn as torch.nn.Linear draws them."""
        return _linear("linear", self.dim, self.num_classes, generator)


@dataclass(frozen=True)
class LinearHead(_LinearLayer):
    """A linear layer on a clip's vector."""

    def scores(self, weights: Weights, vectors: Tensor) -> Tensor:
        """(N, D) -> logits (H, N, C)"""
        return _stacked_linear(vectors, weights, "linear")


@dataclass(frozen=True)
class FrameHead(_LinearLayer):
    """A linear layer on every frame, for detection."""

    def scores(self, weights: Weights, frames: Tensor, lengths: Tensor) -> Tensor:
        """(N, T, D), (N,) -> logits (H, N, T, C); those beyond a clip's length mean nothing"""
        return _stacked_linear(frames, weights, "linear")


@dataclass(frozen=True)
class AttentionHead:
    """Multi-head attention over a clip's frames with one learned query, then a linear layer.

    Pooling by multi-head attention with one seed S (Lee et al., 2019, Set Transformer, equations 6,
    7 and 9), without the row-wise layer in front of it, so that what is probed stays the encoder's
    own frames:

        h = LayerNorm(S + concat_a(V_a sum_t w_at z_t))
        y = LayerNorm(h + relu(W h + b)),   logits = linear(y)
    """

    dim: int
    num_classes: int
    num_attention_heads: int = 4

    def __post_init__(self) -> None:
        if self.dim % self.num_attention_heads:
            raise ValueError(
                f"{self.num_attention_heads} attention heads do not divide the encoder's {self.dim}"
                " channels; choose another --attention-heads"
            )

    def initial(self, generator: torch.Generator) -> Weights:
        """Weights of one copy."""
        ones, zeros = torch.ones(self.dim), torch.zeros(self.dim)
        return {
            "query": _uniform((self.num_attention_heads, self.dim), self.dim, generator),
            "seed": _uniform((self.dim,), self.dim, generator),
            **_linear("value", self.dim, self.dim, generator),
            **{
                "norm1_scale": ones,
                "norm1_bias": zeros,
                "norm2_scale": ones.clone(),
                "norm2_bias": zeros.clone(),
            },
            **_linear("feedforward", self.dim, self.dim, generator),
            **_linear("linear", self.dim, self.num_classes, generator),
        }

    def scores(self, weights: Weights, frames: Tensor, lengths: Tensor) -> Tensor:
        """(N, T, D), (N,) -> logits (H, N, C)"""
        copies, heads = weights["query"].shape[:2]
        pooled = attention_pool(frames, lengths, weights["query"].flatten(0, 1))  # (N, HA, D)
        values = weights["value_weight"].view(copies * heads, -1, self.dim)  # (HA, D/A, D)
        x = torch.bmm(pooled.transpose(0, 1), values.transpose(1, 2))  # (HA, N, D/A)
        x = x.view(copies, heads, len(frames), -1).transpose(1, 2).flatten(2)  # (H, N, D)
        x = x + weights["value_bias"].unsqueeze(1) + weights["seed"].unsqueeze(1)
        x = self._norm(x, weights, "norm1")
        x = self._norm(x + F.relu(_each_linear(x, weights, "feedforward")), weights, "norm2")
        return _each_linear(x, weights, "linear")

    def _norm(self, x: Tensor, weights: Weights, name: str) -> Tensor:
        x = F.layer_norm(x, (self.dim,))
        return x * weights[f"{name}_scale"].unsqueeze(1) + weights[f"{name}_bias"].unsqueeze(1)


Head = LinearHead | FrameHead | AttentionHead
HEADS: dict[str, type[Head]] = {
    "linear": LinearHead,
    "frames": FrameHead,
    "attention": AttentionHead,
}


def head_to_dict(head: Head) -> dict[str, Any]:
    """Kind and shape, for checkpoints."""
    return {
        "kind": next(name for name, kind in HEADS.items() if kind is type(head)),
        **asdict(head),
    }


def head_from_dict(settings: dict[str, Any]) -> Head:
    """The head that head_to_dict described."""
    settings = dict(settings)
    return HEADS[settings.pop("kind")](**settings)


def _stacked_linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    """(..., D) -> (H, ..., C): all copies see the same input, so one matrix product serves them
    all.
    """
    weight, bias = weights[f"{name}_weight"], weights[f"{name}_bias"]
    scores = F.linear(x, weight.flatten(0, 1), bias.flatten()).unflatten(-1, bias.shape)
    return scores.movedim(-2, 0)


def _each_linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    """(H, N, D) -> (H, N, C): every copy has its own input."""
    return torch.baddbmm(
        weights[f"{name}_bias"].unsqueeze(1), x, weights[f"{name}_weight"].transpose(1, 2)
    )


def _linear(name: str, dim: int, out: int, generator: torch.Generator) -> Weights:
    weight, bias = _uniform((out, dim), dim, generator), _uniform((out,), dim, generator)
    return {f"{name}_weight": weight, f"{name}_bias": bias}


def _uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
    bound = 1.0 / math.sqrt(fan_in)
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
