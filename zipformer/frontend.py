"""The convolutional frontend: 80 log-mel bands at 100 frames per second to channels at 50 frames
per second.

Images are (N, C, T, bands) with channels last in memory, so that 1x1 convolutions are plain matrix
products.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zipformer.activations import SWOOSH_L, SwooshR, scale_initial_, swoosh_linear
from zipformer.config import ZipformerConfig
from zipformer.norm import BiasNorm
from zipformer.randomness import SharedDropout, StochasticModule
from zipformer.regularisers import Balancer, ScaleGrad, Whiten
from zipformer.schedules import Rate, ScheduledFloat

# Features that one output frame of the strided convolutions sees; fewer give no frame.
MIN_FEATURES = 9


def frontend_lengths(lengths: Tensor) -> Tensor:
    """(N,) feature frames at 100 Hz -> (N,) frames at 50 Hz"""
    return (lengths - 7) // 2


class ConvNeXt(StochasticModule):
    """Depthwise 7x7 convolution and two pointwise ones around SwooshL, as a residual."""

    def __init__(self, channels: int, backend: str = "torch") -> None:
        super().__init__()
        self.backend = backend
        self.layerdrop_rate = Rate((0.0, 0.2), (20000.0, 0.015))
        self.depthwise_conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.pointwise_conv1 = nn.Conv2d(channels, 3 * channels, 1)
        self.hidden_balancer = Balancer(
            3 * channels, min_positive=0.3, max_positive=1.0, min_abs=0.75, max_abs=5.0
        )
        self.pointwise_conv2 = scale_initial_(nn.Conv2d(3 * channels, channels, 1), 0.01)
        self.out_balancer = Balancer(
            channels, min_positive=0.4, max_positive=0.6, min_abs=1.0, max_abs=6.0
        )
        self.out_whiten = Whiten(1, 5.0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, bands) -> (N, T, bands, C)"""
        y = self.depthwise_conv(x).permute(0, 2, 3, 1)
        y = self.hidden_balancer(
            F.linear(y, self.pointwise_conv1.weight.flatten(1), self.pointwise_conv1.bias)
        )
        weight, bias = self.pointwise_conv2.weight.flatten(1), self.pointwise_conv2.bias
        y = swoosh_linear(y, weight, bias, SWOOSH_L, self.backend)
        x = x.permute(0, 2, 3, 1)
        kept = self.keep_mask(self.layerdrop_rate, (x.shape[0], 1, 1, 1), y)
        x = x + (y if kept is None else y * kept)
        return self.out_whiten(self.out_balancer(x))


class Frontend(nn.Module):
    """Three convolutions, a ConvNeXt block, a linear layer over channels and bands, BiasNorm,
    dropout.
    """

    def __init__(self, config: ZipformerConfig) -> None:
        super().__init__()
        first, second, third = config.frontend_channels
        dim, backend = config.encoder_dim[0], config.swoosh_backend
        self.conv = nn.Sequential(
            nn.Conv2d(1, first, 3, padding=(0, 1)),
            ScaleGrad(0.2),
            Balancer(first, channel_dim=1, max_abs=1.0),
            SwooshR(backend),
            nn.Conv2d(first, second, 3, stride=2),
            Balancer(second, channel_dim=1, max_abs=4.0),
            SwooshR(backend),
            nn.Conv2d(second, third, 3, stride=(1, 2)),
            Balancer(third, channel_dim=1, max_abs=4.0),
            SwooshR(backend),
        )
        self.convnext = ConvNeXt(third, backend)
        self.out = nn.Linear(third * config.frontend_bands, dim)
        self.out_whiten = Whiten(1, ScheduledFloat((0.0, 4.0), (20000.0, 8.0), default=4.0), 0.02)
        self.out_norm = BiasNorm(dim)
        self.dropout = SharedDropout(Rate(*config.dropout))

    def forward(self, features: Tensor, padding: Tensor | None = None) -> Tensor:
        """(N, T, 80) -> (N, (T - 7) // 2, D)

        `padding` (N, (T - 7) // 2) marks output frames past an item's end; it keeps them out of the
        frames before.
        """
        # With one channel a tensor counts as channels-last already; only these strides make the
        # convolutions keep it.
        x = features.contiguous().unsqueeze(-1).permute(0, 3, 1, 2)
        x = self.conv(x)
        if padding is not None:
            x = x.masked_fill(padding[:, None, :, None], 0.0)
        x = self.convnext(x)  # (N, T, bands, C)
        x = F.linear(x.flatten(2), self._out_weight(), self.out.bias)
        return self.dropout(self.out_norm(self.out_whiten(x)))

    def _out_weight(self) -> Tensor:
        """(D, bands * C): the stored weight counts its inputs channel by channel, images have
        channels last
        """
        dim, channels = self.out.out_features, self.convnext.depthwise_conv.in_channels
        return self.out.weight.view(dim, channels, -1).transpose(1, 2).flatten(1)
