"""Feed-forward module of the encoder layer."""

from __future__ import annotations

from torch import Tensor, nn

from zipformer.activations import SWOOSH_L, SwooshDropoutLinear
from zipformer.regularisers import Balancer, Whiten
from zipformer.schedules import Rate, ScheduledFloat


class FeedForward(nn.Module):
    """Linear, SwooshL, dropout, linear."""

    def __init__(self, dim: int, hidden_dim: int, dropout: Rate, backend: str = "torch") -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, hidden_dim)
        self.hidden_balancer = Balancer(
            hidden_dim, min_positive=0.3, max_positive=1.0, min_abs=0.75, max_abs=5.0
        )
        self.out_proj = SwooshDropoutLinear(
            hidden_dim, dim, SWOOSH_L, dropout, initial_scale=0.1, backend=backend
        )
        self.out_whiten = Whiten(1, ScheduledFloat((0.0, 7.5), (20000.0, 15.0), default=7.5))

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)"""
        return self.out_whiten(self.out_proj(self.hidden_balancer(self.in_proj(x))))
