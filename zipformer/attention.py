"""Attention of the encoder layer: weights computed once, used three times.

Sizes: N batch, T frames, D channels, H heads; dk, dp, dv channels per head of queries, position
queries and values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zipformer.activations import scale_initial_
from zipformer.randomness import StochasticModule
from zipformer.regularisers import Balancer, Whiten, penalize_abs
from zipformer.schedules import Rate, ScheduledFloat
from zipformer.sequences import Frames

# exp of it is exactly 0 in float32, and half precision can represent it.
_BLOCKED = -1000.0


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(N, T, H * d) -> (H, N, T, d)"""
    return x.view(x.shape[0], x.shape[1], num_heads, -1).permute(2, 0, 1, 3)


def relative_to_absolute(scores: Tensor) -> Tensor:
    """(B, T, 2T-1) by offset -> (B, T, T) view: out[b, i, j] = scores[b, i, j - i + T - 1]."""
    b, t, width = scores.shape
    return scores.as_strided((b, t, t), (t * width, width - 1, 1), scores.storage_offset() + t - 1)


class AttentionWeights(StochasticModule):
    """Softmax of query-key scores plus position-query-offset scores, for all heads.

        score[h, n, i, j] = q[h, n, i] . k[h, n, j] + p[h, n, i] . R[h, j - i],
        R = linear_pos(encoding)

    There is no 1/sqrt(dk): it is in the initial values.
    """

    penalty_probability, penalty_limit, penalty = 0.1, 25.0, 1e-4

    def __init__(
        self, dim: int, pos_dim: int, num_heads: int, query_head_dim: int, pos_head_dim: int
    ) -> None:
        super().__init__()
        self.num_heads, self.query_head_dim, self.pos_head_dim = (
            num_heads,
            query_head_dim,
            pos_head_dim,
        )
        key_dim = num_heads * query_head_dim
        self.in_proj = nn.Linear(dim, 2 * key_dim + num_heads * pos_head_dim)
        scale_initial_(self.in_proj, query_head_dim**-0.25)
        self.linear_pos = scale_initial_(
            nn.Linear(pos_dim, num_heads * pos_head_dim, bias=False), 0.05
        )
        self.balance_keys = Balancer(
            key_dim, min_positive=0.4, max_positive=0.6, min_abs=0.0, max_abs=100.0, prob=0.025
        )
        self.whiten_keys = Whiten(
            num_heads, ScheduledFloat((0.0, 3.0), (20000.0, 6.0), default=3.0), 0.025
        )
        self.pos_emb_skip_rate = Rate((0.0, 0.5), (4000.0, 0.0))

    def forward(self, x: Tensor, positions: Tensor, frames: Frames) -> Tensor:
        """(N, T, D), (2T-1, P) -> (H, N, T, T), last dimension the keys"""
        n, t, _ = x.shape
        key_dim = self.num_heads * self.query_head_dim
        q, k, p = self.in_proj(x).split(
            (key_dim, key_dim, self.num_heads * self.pos_head_dim), dim=-1
        )
        k = self.whiten_keys(self.balance_keys(k))
        q = split_heads(q, self.num_heads).reshape(-1, t, self.query_head_dim)
        k = split_heads(k, self.num_heads).reshape(-1, t, self.query_head_dim)
        if self.training and self.randomness.decide(self.pos_emb_skip_rate.value):
            scores = torch.bmm(q, k.transpose(1, 2))
        else:
            scores = torch.baddbmm(self._position_scores(p, positions), q, k.transpose(1, 2))
        penalised = self.training and self.randomness.decide(self.penalty_probability)
        if penalised:
            scores = penalize_abs(scores, self.penalty_limit, self.penalty)
        scores = self._mask(scores, frames, in_place=not penalised)
        # Autocast would return float32 weights and keep them for the backward; the kernels use
        # float32 inside anyway.
        with torch.autocast(scores.device.type, enabled=False):
            return scores.view(self.num_heads, n, t, t).softmax(dim=-1)

    def _mask(self, scores: Tensor, frames: Frames, in_place: bool) -> Tensor:
        """(H * N, T, T) -> the same with scores at keys that are not allowed so low that their
        weight is exactly 0
        """
        if frames.blocked is not None:
            # All keys of a row may be blocked: then every score must be the same, so that the
            # weights are equal.
            scores = scores.masked_fill(frames.blocked, _BLOCKED)
            if frames.padding is not None:
                scores = scores.masked_fill(
                    frames.padding.repeat(self.num_heads, 1)[:, None], _BLOCKED
                )
        elif frames.padding is not None:
            # A row always has an allowed key here, and adding needs neither a copy nor a backward
            # pass.
            bias = torch.zeros_like(frames.padding, dtype=scores.dtype).masked_fill_(
                frames.padding, _BLOCKED
            )
            bias = bias.repeat(self.num_heads, 1)[:, None]
            scores = scores.add_(bias) if in_place else scores + bias
        return scores

    def _position_scores(self, p: Tensor, positions: Tensor) -> Tensor:
        """(N, T, H * dp), (2T-1, P) -> (H * N, T, T), a view"""
        n, t, _ = p.shape
        offsets = (
            self.linear_pos(positions).view(-1, self.num_heads, self.pos_head_dim).permute(1, 2, 0)
        )
        scores = torch.matmul(
            split_heads(p, self.num_heads), offsets.unsqueeze(1)
        )  # (H, N, T, 2T-1)
        return relative_to_absolute(scores.view(self.num_heads * n, t, -1))


def attend(weights: Tensor, values: Tensor) -> Tensor:
    """(H, N, T, T), (N, T, H * d) -> (N, T, H * d): weighted sums over the keys, head by head."""
    heads, n, t, _ = weights.shape
    values = split_heads(values, heads).reshape(heads * n, t, -1)
    out = torch.bmm(weights.reshape(heads * n, t, t), values)
    return out.view(heads, n, t, -1).permute(1, 2, 0, 3).reshape(n, t, -1)


class SelfAttention(nn.Module):
    """Values, weighted sums with given weights, output projection."""

    def __init__(self, dim: int, num_heads: int, value_head_dim: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, num_heads * value_head_dim)
        self.out_proj = scale_initial_(nn.Linear(num_heads * value_head_dim, dim), 0.05)
        self.whiten = Whiten(1, ScheduledFloat((0.0, 7.5), (20000.0, 22.5), default=7.5))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """(N, T, D), (H, N, T, T) -> (N, T, D)"""
        return self.whiten(self.out_proj(attend(weights, self.in_proj(x))))


class NonlinAttention(nn.Module):
    """Attention between two gates: out_proj((w (x * tanh(s))) * y)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, 3 * hidden_dim)
        self.balancer = Balancer(
            hidden_dim,
            min_positive=ScheduledFloat((0.0, 0.25), (20000.0, 0.05)),
            max_positive=ScheduledFloat((0.0, 0.75), (20000.0, 0.95)),
            min_abs=0.5,
            max_abs=5.0,
        )
        self.whiten1 = Whiten(1, ScheduledFloat((0.0, 5.0), (20000.0, 10.0), default=5.0))
        self.out_proj = scale_initial_(nn.Linear(hidden_dim, dim), 0.05)
        self.whiten2 = Whiten(1, ScheduledFloat((0.0, 5.0), (20000.0, 15.0), default=5.0))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """(N, T, D), (H, N, T, T), here of one head -> (N, T, D)"""
        s, x, y = self.in_proj(x).chunk(3, dim=-1)
        gated = self.whiten1(x) * torch.tanh(self.balancer(s))
        return self.whiten2(self.out_proj(attend(weights, gated) * y))
