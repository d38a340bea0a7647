"""One encoder layer (Zipformer paper, figure 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zipformer.attention import AttentionWeights, NonlinAttention, SelfAttention
from zipformer.config import ZipformerConfig
from zipformer.convolution import ConvolutionModule
from zipformer.feedforward import FeedForward
from zipformer.norm import BiasNorm
from zipformer.randomness import StochasticModule
from zipformer.regularisers import Balancer, Whiten
from zipformer.resampling import Bypass
from zipformer.schedules import Rate, ScheduledFloat
from zipformer.sequences import Frames


def residual(x: Tensor, update: Tensor, mask: Tensor | None = None) -> Tensor:
    """(N, T, D), (N, T, D), (N, 1, 1) or None -> x + mask * update; overwrites `update` where no
    gradient needs it.
    """
    if mask is not None:
        return torch.addcmul(x, update, mask)
    return x + update if update.requires_grad else update.add_(x)


class EncoderLayer(StochasticModule):
    """Attention weights from the layer's input, then eight residual modules between two bypasses.

    `bypass_scale` has no use; it is part of every published checkpoint and takes no gradient.
    """

    def __init__(self, config: ZipformerConfig, stack: int, layer_skip: Rate) -> None:
        super().__init__()
        dim, hidden = config.encoder_dim[stack], config.feedforward_dim[stack]
        heads, value_dim = config.num_heads[stack], config.value_head_dim[stack]
        kernel, backend = config.cnn_module_kernel[stack], config.swoosh_backend

        self.bypass_scale = nn.Parameter(torch.full((dim,), 0.5), requires_grad=False)
        self.bypass = Bypass(dim, layer_skip)
        self.bypass_mid = Bypass(dim)
        self.self_attn_weights = AttentionWeights(
            dim, config.pos_dim, heads, config.query_head_dim[stack], config.pos_head_dim[stack]
        )
        self.self_attn1 = SelfAttention(dim, heads, value_dim)
        self.self_attn2 = SelfAttention(dim, heads, value_dim)
        self.feed_forward1 = FeedForward(dim, 3 * hidden // 4, Rate(*config.dropout), backend)
        self.feed_forward2 = FeedForward(dim, hidden, Rate(*config.dropout), backend)
        self.feed_forward3 = FeedForward(dim, 5 * hidden // 4, Rate(*config.dropout), backend)
        self.nonlin_attention = NonlinAttention(dim, 3 * dim // 4)
        self.conv_module1 = ConvolutionModule(dim, kernel, config.causal, backend)
        self.conv_module2 = ConvolutionModule(dim, kernel, config.causal, backend)
        self.norm = BiasNorm(dim)
        self._add_regularisers(dim)

    def _add_regularisers(self, dim: int) -> None:
        self.attention_skip_rate = Rate((0.0, 0.2), (4000.0, 0.05), (16000.0, 0.0))
        self.conv_skip_rate = Rate((0.0, 0.2), (4000.0, 0.05), (16000.0, 0.0))
        self.const_attention_rate = Rate((0.0, 0.25), (4000.0, 0.025))
        self.ff2_skip_rate = Rate((0.0, 0.1), (4000.0, 0.01), (50000.0, 0.0))
        self.ff3_skip_rate = Rate((0.0, 0.1), (4000.0, 0.01), (50000.0, 0.0))
        # The outputs of these three modules: not too small, and never dominating the residual
        # stream.
        self.balancer_na = Balancer(
            dim,
            min_positive=0.3,
            max_positive=0.7,
            min_abs=ScheduledFloat((0.0, 0.004), (4000.0, 0.02)),
            max_abs=100.0,
            prob=0.05,
        )
        self.balancer_ff2 = Balancer(
            dim,
            min_positive=0.3,
            max_positive=0.7,
            min_abs=ScheduledFloat((0.0, 0.0), (4000.0, 0.1)),
            max_abs=2.0,
            prob=0.05,
        )
        self.balancer_ff3 = Balancer(
            dim,
            min_positive=0.3,
            max_positive=0.7,
            min_abs=ScheduledFloat((0.0, 0.0), (4000.0, 0.2)),
            max_abs=4.0,
            prob=0.05,
        )
        self.balancer1 = Balancer(
            dim, min_positive=0.45, max_positive=0.55, min_abs=0.2, max_abs=4.0
        )
        self.balancer2 = Balancer(
            dim, min_positive=0.45, max_positive=0.55, min_abs=0.1, max_abs=4.0
        )
        self.whiten = Whiten(1, ScheduledFloat((0.0, 4.0), (20000.0, 12.0), default=4.0))

    def forward(self, x: Tensor, positions: Tensor, frames: Frames) -> Tensor:
        """(N, T, D), (2T-1, P) -> (N, T, D)"""
        x0 = x
        weights = self.self_attn_weights(x, positions, frames)
        x = residual(x, self.feed_forward1(x))
        attended = self._sequence_mask(self.attention_skip_rate, x)
        x = residual(
            x, self.balancer_na(self.nonlin_attention(x, self._first_head(weights))), attended
        )
        x = residual(x, self.self_attn1(x, weights), attended)
        x = residual(x, self.conv_module1(x, frames), self._sequence_mask(self.conv_skip_rate, x))
        x = residual(
            x, self.balancer_ff2(self.feed_forward2(x)), self._sequence_mask(self.ff2_skip_rate, x)
        )
        x = self.bypass_mid(x0, x)
        x = residual(x, self.self_attn2(x, weights), attended)
        x = residual(x, self.conv_module2(x, frames), self._sequence_mask(self.conv_skip_rate, x))
        x = residual(
            x, self.balancer_ff3(self.feed_forward3(x)), self._sequence_mask(self.ff3_skip_rate, x)
        )
        x = self.bypass(x0, self.norm(self.balancer1(x)))
        return self.whiten(self.balancer2(x))

    def _sequence_mask(self, rate: Rate, x: Tensor) -> Tensor | None:
        """(N, 1, 1) or None: 0 for sequences that leave a module out"""
        return self.keep_mask(rate, (x.shape[0], 1, 1), x)

    def _first_head(self, weights: Tensor) -> Tensor:
        """(H, N, T, T) -> (1, N, T, T): the first head, in some calls made uniform over the allowed
        keys
        """
        first = weights[:1]
        if self.training and self.randomness.decide(self.const_attention_rate.value):
            allowed = (first > 0.0).to(first.dtype)
            first = allowed / allowed.sum(dim=-1, keepdim=True)
        return first
