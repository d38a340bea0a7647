"""The Zipformer written module by module in plain PyTorch: the baseline that the package has to
beat.

Every formula stands where the paper has it, differentiated by autograd, in the layout (T, N, C);
nothing is fused, shared or recomputed. Numbers and state-dict keys are those of the package, so
weights go either way:

    plain = PlainZipformer(config)
    plain.load_state_dict(Zipformer(config).state_dict())

Not causal. Sizes: N batch, T frames, D channels, H heads.
"""

import math
import random

import torch
import torch.nn.functional as F
from plain_modules import (
    Balancer,
    BiasNorm,
    Dropout,
    LimitParameter,
    PenalizeLarge,
    ScaleGrad,
    SwooshR,
    Whiten,
    keep_mask,
    scaled,
    swoosh_l,
    swoosh_r,
)
from torch import Tensor, nn

from zipformer import ZipformerConfig
from zipformer.schedules import Rate, ScheduledFloat, ScheduledModule


class ConvNeXt(ScheduledModule):
    def __init__(self, channels: int):
        super().__init__()
        self.rate = Rate((0.0, 0.2), (20000.0, 0.015))
        self.depthwise_conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.pointwise_conv1 = nn.Conv2d(channels, 3 * channels, 1)
        self.hidden_balancer = Balancer(1, 0.3, 1.0, 0.75, 5.0)
        self.pointwise_conv2 = scaled(nn.Conv2d(3 * channels, channels, 1), 0.01)
        self.out_balancer = Balancer(1, 0.4, 0.6, 1.0, 6.0)
        self.out_whiten = Whiten(1, 5.0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, bands) -> the same"""
        y = self.hidden_balancer(self.pointwise_conv1(self.depthwise_conv(x)))
        y = self.pointwise_conv2(swoosh_l(y))
        if self.training and self.rate.value != 0.0:
            y = y * keep_mask((x.shape[0], 1, 1, 1), self.rate.value, y)
        x = self.out_balancer(x + y)
        return self.out_whiten(x.permute(0, 3, 2, 1)).permute(0, 3, 2, 1)


class Frontend(nn.Module):
    def __init__(self, config: ZipformerConfig):
        super().__init__()
        first, second, third = config.frontend_channels
        dim = config.encoder_dim[0]
        self.conv = nn.Sequential(
            nn.Conv2d(1, first, 3, padding=(0, 1)),
            ScaleGrad(0.2),
            Balancer(1, 0.05, 0.95, 0.2, 1.0),
            SwooshR(),
            nn.Conv2d(first, second, 3, stride=2),
            Balancer(1, 0.05, 0.95, 0.2, 4.0),
            SwooshR(),
            nn.Conv2d(second, third, 3, stride=(1, 2)),
            Balancer(1, 0.05, 0.95, 0.2, 4.0),
            SwooshR(),
        )
        self.convnext = ConvNeXt(third)
        self.out = nn.Linear(third * config.frontend_bands, dim)
        self.out_whiten = Whiten(1, ScheduledFloat((0.0, 4.0), (20000.0, 8.0), default=4.0), 0.02)
        self.out_norm = BiasNorm(dim)
        self.dropout = Dropout(Rate(*config.dropout), shared_dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, T, 80) -> (N, (T - 7) // 2, D)"""
        x = self.convnext(self.conv(features.unsqueeze(1)))
        x = self.out(x.transpose(1, 2).flatten(2))
        return self.dropout(self.out_norm(self.out_whiten(x)))


def relative_positions(num_frames: int, dim: int, device: torch.device) -> Tensor:
    """(1, 2T - 1, dim): encoding of the offsets -(T - 1) .. T - 1."""
    offset = torch.arange(-(num_frames - 1), num_frames, device=device, dtype=torch.float32)
    c = math.sqrt(dim)
    theta = torch.atan(
        c * offset.sign() * ((offset.abs() + c).log() - math.log(c)) * (2.0 * math.pi / dim)
    )
    angles = theta[:, None] * torch.arange(1, dim // 2 + 1, device=device)
    encoding = torch.stack((angles.cos(), angles.sin()), dim=-1).flatten(1)
    encoding[:, -1] = 1.0
    return encoding.unsqueeze(0)


class AttentionWeights(ScheduledModule):
    def __init__(self, dim: int, pos_dim: int, heads: int, query_dim: int, pos_head_dim: int):
        super().__init__()
        self.heads, self.query_dim, self.pos_head_dim = heads, query_dim, pos_head_dim
        self.in_proj = scaled(
            nn.Linear(dim, heads * (2 * query_dim + pos_head_dim)), query_dim**-0.25
        )
        self.linear_pos = scaled(nn.Linear(pos_dim, heads * pos_head_dim, bias=False), 0.05)
        self.balance_keys = Balancer(-1, 0.4, 0.6, 0.0, 100.0, prob=0.025)
        self.whiten_keys = Whiten(
            heads, ScheduledFloat((0.0, 3.0), (20000.0, 6.0), default=3.0), 0.025
        )
        self.pos_emb_skip_rate = Rate((0.0, 0.5), (4000.0, 0.0))

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor) -> Tensor:
        """(T, N, D), (1, 2T-1, P), (N, T) -> (H, N, T, T)"""
        t, n, _ = x.shape
        q, k, p = self.in_proj(x).split(
            [self.heads * d for d in (self.query_dim, self.query_dim, self.pos_head_dim)], dim=-1
        )
        k = self.whiten_keys(self.balance_keys(k))
        q = q.reshape(t, n, self.heads, self.query_dim).permute(2, 1, 0, 3)
        k = k.reshape(t, n, self.heads, self.query_dim).permute(2, 1, 3, 0)
        scores = torch.matmul(q, k)
        if not self.training or random.random() >= self.pos_emb_skip_rate.value:
            p = p.reshape(t, n, self.heads, self.pos_head_dim).permute(2, 1, 0, 3)
            r = (
                self.linear_pos(positions)
                .reshape(1, -1, self.heads, self.pos_head_dim)
                .permute(2, 0, 3, 1)
            )
            by_offset = torch.matmul(p, r).contiguous()  # (H, N, T, 2T - 1)
            stride = by_offset.stride()
            scores = scores + by_offset.as_strided(
                (self.heads, n, t, t), (stride[0], stride[1], stride[2] - 1, 1), t - 1
            )
        if self.training and random.random() < 0.1:
            scores = PenalizeLarge.apply(scores, 25.0, 1e-4)
        scores = scores.masked_fill(padding[:, None], -1000.0)
        return scores.softmax(dim=-1)


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int, value_dim: int):
        super().__init__()
        self.in_proj = nn.Linear(dim, heads * value_dim)
        self.out_proj = scaled(nn.Linear(heads * value_dim, dim), 0.05)
        self.whiten = Whiten(1, ScheduledFloat((0.0, 7.5), (20000.0, 22.5), default=7.5))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """(T, N, D), (H, N, T, T) -> (T, N, D)"""
        t, n, _ = x.shape
        v = self.in_proj(x).reshape(t, n, weights.shape[0], -1).permute(2, 1, 0, 3)
        y = torch.matmul(weights, v).permute(2, 1, 0, 3).reshape(t, n, -1)
        return self.whiten(self.out_proj(y))


class NonlinAttention(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.in_proj = nn.Linear(dim, 3 * hidden)
        self.balancer = Balancer(
            -1,
            ScheduledFloat((0.0, 0.25), (20000.0, 0.05)),
            ScheduledFloat((0.0, 0.75), (20000.0, 0.95)),
            0.5,
            5.0,
        )
        self.whiten1 = Whiten(1, ScheduledFloat((0.0, 5.0), (20000.0, 10.0), default=5.0))
        self.out_proj = scaled(nn.Linear(hidden, dim), 0.05)
        self.whiten2 = Whiten(1, ScheduledFloat((0.0, 5.0), (20000.0, 15.0), default=5.0))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """(T, N, D), (1, N, T, T) -> (T, N, D)"""
        s, x, y = self.in_proj(x).chunk(3, dim=-1)
        x = self.whiten1(x) * torch.tanh(self.balancer(s))
        x = torch.matmul(weights[0], x.transpose(0, 1)).transpose(0, 1)
        return self.whiten2(self.out_proj(x * y))


class ActivationDropoutLinear(nn.Linear):
    def __init__(
        self, in_features: int, out_features: int, activation, dropout: Rate | None, scale: float
    ):
        super().__init__(in_features, out_features)
        self.activation = activation
        self.dropout = Dropout(Rate((0.0, 0.0)) if dropout is None else dropout, shared_dim=0)
        scaled(self, scale)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.dropout(self.activation(x)))


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int, dropout: Rate):
        super().__init__()
        self.in_proj = nn.Linear(dim, hidden)
        self.hidden_balancer = Balancer(-1, 0.3, 1.0, 0.75, 5.0)
        self.out_proj = ActivationDropoutLinear(hidden, dim, swoosh_l, dropout, 0.1)
        self.out_whiten = Whiten(1, ScheduledFloat((0.0, 7.5), (20000.0, 15.0), default=7.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.out_whiten(self.out_proj(self.hidden_balancer(self.in_proj(x))))


class ConvolutionModule(nn.Module):
    def __init__(self, dim: int, kernel: int):
        super().__init__()
        self.in_proj = nn.Linear(dim, 2 * dim)
        self.balancer1 = Balancer(
            -1,
            ScheduledFloat((0.0, 0.05), (8000.0, 0.025)),
            1.0,
            1.5,
            ScheduledFloat((0.0, 5.0), (8000.0, 10.0), default=1.0),
        )
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel, groups=dim, padding=kernel // 2)
        self.balancer2 = Balancer(
            1,
            ScheduledFloat((0.0, 0.1), (8000.0, 0.05)),
            1.0,
            ScheduledFloat((0.0, 0.2), (20000.0, 0.5)),
            10.0,
        )
        self.whiten = Whiten(1, ScheduledFloat((0.0, 7.5), (20000.0, 15.0), default=7.5))
        self.out_proj = ActivationDropoutLinear(dim, dim, swoosh_r, None, 0.05)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """(T, N, D), (N, T) -> (T, N, D)"""
        x, s = self.in_proj(x).chunk(2, dim=-1)
        x = x * torch.sigmoid(self.balancer1(s))
        x = x.permute(1, 2, 0).masked_fill(padding[:, None], 0.0)
        x = self.balancer2(self.depthwise_conv(x))
        return self.out_proj(self.whiten(x.permute(2, 0, 1)))


class Bypass(ScheduledModule):
    def __init__(self, dim: int, skip_rate: Rate | None = None):
        super().__init__()
        self.bypass_scale = nn.Parameter(torch.full((dim,), 0.5))
        self.skip_rate = Rate((0.0, 0.0)) if skip_rate is None else skip_rate
        self.scale_min = ScheduledFloat((0.0, 0.9), (20000.0, 0.2))

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """(T, N, D), (T, N, D) -> (T, N, D)"""
        scale = self.bypass_scale
        if self.training:
            if random.random() < 0.6:
                scale = LimitParameter.apply(scale, self.scale_min.value, 1.0)
            if self.skip_rate.value != 0.0:
                scale = scale * keep_mask((x.shape[1], 1), self.skip_rate.value, x)
        return x0 + (x - x0) * scale


class EncoderLayer(ScheduledModule):
    def __init__(self, config: ZipformerConfig, stack: int, skip_rate: Rate):
        super().__init__()
        dim, hidden = config.encoder_dim[stack], config.feedforward_dim[stack]
        heads, kernel = config.num_heads[stack], config.cnn_module_kernel[stack]
        self.bypass_scale = nn.Parameter(torch.full((dim,), 0.5))  # unused, but in every checkpoint
        self.bypass = Bypass(dim, skip_rate)
        self.bypass_mid = Bypass(dim)
        self.self_attn_weights = AttentionWeights(
            dim, config.pos_dim, heads, config.query_head_dim[stack], config.pos_head_dim[stack]
        )
        self.self_attn1 = SelfAttention(dim, heads, config.value_head_dim[stack])
        self.self_attn2 = SelfAttention(dim, heads, config.value_head_dim[stack])
        self.feed_forward1 = FeedForward(dim, 3 * hidden // 4, Rate(*config.dropout))
        self.feed_forward2 = FeedForward(dim, hidden, Rate(*config.dropout))
        self.feed_forward3 = FeedForward(dim, 5 * hidden // 4, Rate(*config.dropout))
        self.nonlin_attention = NonlinAttention(dim, 3 * dim // 4)
        self.conv_module1 = ConvolutionModule(dim, kernel)
        self.conv_module2 = ConvolutionModule(dim, kernel)
        self.norm = BiasNorm(dim)
        self.attention_skip_rate = Rate((0.0, 0.2), (4000.0, 0.05), (16000.0, 0.0))
        self.conv_skip_rate = Rate((0.0, 0.2), (4000.0, 0.05), (16000.0, 0.0))
        self.const_attention_rate = Rate((0.0, 0.25), (4000.0, 0.025))
        self.ff_skip_rate = Rate((0.0, 0.1), (4000.0, 0.01), (50000.0, 0.0))
        self.balancer_na = Balancer(
            -1, 0.3, 0.7, ScheduledFloat((0.0, 0.004), (4000.0, 0.02)), 100.0, 0.05
        )
        self.balancer_ff2 = Balancer(
            -1, 0.3, 0.7, ScheduledFloat((0.0, 0.0), (4000.0, 0.1)), 2.0, 0.05
        )
        self.balancer_ff3 = Balancer(
            -1, 0.3, 0.7, ScheduledFloat((0.0, 0.0), (4000.0, 0.2)), 4.0, 0.05
        )
        self.balancer1 = Balancer(-1, 0.45, 0.55, 0.2, 4.0)
        self.balancer2 = Balancer(-1, 0.45, 0.55, 0.1, 4.0)
        self.whiten = Whiten(1, ScheduledFloat((0.0, 4.0), (20000.0, 12.0), default=4.0))

    def sequence_mask(self, x: Tensor, rate: Rate) -> Tensor | float:
        if not self.training or rate.value == 0.0:
            return 1.0
        return keep_mask((x.shape[1], 1), rate.value, x)

    def first_head(self, weights: Tensor) -> Tensor:
        first = weights[:1]
        if self.training and random.random() < self.const_attention_rate.value:
            first = (first > 0.0).to(first.dtype)
            first = first / first.sum(dim=-1, keepdim=True)
        return first

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor) -> Tensor:
        """(T, N, D), (1, 2T-1, P), (N, T) -> (T, N, D)"""
        x0 = x
        weights = self.self_attn_weights(x, positions, padding)
        x = x + self.feed_forward1(x)
        attended = self.sequence_mask(x, self.attention_skip_rate)
        x = x + attended * self.balancer_na(self.nonlin_attention(x, self.first_head(weights)))
        x = x + attended * self.self_attn1(x, weights)
        x = x + self.sequence_mask(x, self.conv_skip_rate) * self.conv_module1(x, padding)
        x = x + self.sequence_mask(x, self.ff_skip_rate) * self.balancer_ff2(self.feed_forward2(x))
        x = self.bypass_mid(x0, x)
        x = x + attended * self.self_attn2(x, weights)
        x = x + self.sequence_mask(x, self.conv_skip_rate) * self.conv_module2(x, padding)
        x = x + self.sequence_mask(x, self.ff_skip_rate) * self.balancer_ff3(self.feed_forward3(x))
        x = self.bypass(x0, self.norm(self.balancer1(x)))
        return self.whiten(self.balancer2(x))


class Downsample(nn.Module):
    def __init__(self, factor: int):
        super().__init__()
        self.factor = factor
        self.bias = nn.Parameter(torch.zeros(factor))

    def forward(self, x: Tensor) -> Tensor:
        """(T, N, D) -> (ceil(T / factor), N, D)"""
        missing = -x.shape[0] % self.factor
        x = torch.cat((x, x[-1:].expand(missing, -1, -1)))
        x = x.reshape(-1, self.factor, *x.shape[1:])
        return (x * self.bias.softmax(dim=0)[:, None, None]).sum(dim=1)


class Stack(nn.Module):
    def __init__(self, config: ZipformerConfig, stack: int):
        super().__init__()
        warmup, stacks = config.warmup_batches, config.num_stacks
        layers, factor = config.num_encoder_layers[stack], config.downsampling_factor[stack]
        begin, step = warmup * (stack + 1) / (stacks + 1), warmup / (stacks + 1) / layers
        rates = [
            Rate((begin + i * step, 0.5), (begin + (i + 1) * step, 0.035 * math.sqrt(factor)))
            for i in range(layers)
        ]
        self.pos_dim = config.pos_dim
        self.dropout = Dropout(Rate((0.0, 0.15), default=0.15))
        self.layers = nn.ModuleList(EncoderLayer(config, stack, rate) for rate in rates)

    def forward(self, x: Tensor, feature_mask: Tensor | float, padding: Tensor) -> Tensor:
        positions = self.dropout(relative_positions(x.shape[0], self.pos_dim, x.device))
        x = x * feature_mask
        for layer in self.layers:
            x = layer(x, positions, padding) * feature_mask
        return x


class DownsampledStack(nn.Module):
    def __init__(self, config: ZipformerConfig, stack: int):
        super().__init__()
        self.factor = config.downsampling_factor[stack]
        self.downsample = Downsample(self.factor)
        self.encoder = Stack(config, stack)
        self.out_combiner = Bypass(config.encoder_dim[stack])

    def forward(self, x: Tensor, feature_mask: Tensor | float, padding: Tensor) -> Tensor:
        y = self.encoder(self.downsample(x), feature_mask, padding[:, :: self.factor])
        return self.out_combiner(x, y.repeat_interleave(self.factor, dim=0)[: x.shape[0]])


class Encoder(nn.Module):
    def __init__(self, config: ZipformerConfig):
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleList(
            (Stack if factor == 1 else DownsampledStack)(config, stack)
            for stack, factor in enumerate(config.downsampling_factor)
        )
        self.downsample_output = Downsample(2)

    def feature_masks(self, x: Tensor) -> list[Tensor | float]:
        if not self.training:
            return [1.0] * len(self.encoders)
        first = keep_mask((1, x.shape[1], 1), 0.125, x)
        second = first * keep_mask((1, x.shape[1], 1), 0.125, x)
        masks = []
        for dim, unmasked in zip(self.config.encoder_dim, self.config.encoder_unmasked_dim):
            half = unmasked + (dim - unmasked) // 2
            mask = torch.ones(1, x.shape[1], dim, device=x.device, dtype=x.dtype)
            mask[:, :, unmasked:half] = first
            mask[:, :, half:] = second
            masks.append(mask)
        return masks

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """(T, N, D_0), (N, T) -> (ceil(T / 2), N, max D_i)"""
        outputs = []
        for stack, mask, dim in zip(self.encoders, self.feature_masks(x), self.config.encoder_dim):
            x = x[..., :dim] if dim <= x.shape[-1] else F.pad(x, (0, dim - x.shape[-1]))
            x = stack(x, mask, padding)
            outputs.append(x)
        for output in reversed(outputs[:-1]):
            x = torch.cat((x, output[..., x.shape[-1] :]), dim=-1)
        return self.downsample_output(x)


class PlainZipformer(nn.Module):
    """The whole encoder, called like `zipformer.Zipformer`. Raises ValueError for causal
    configurations.
    """

    def __init__(self, config: ZipformerConfig):
        super().__init__()
        if config.causal:
            raise ValueError(
                "the plain Zipformer is not causal; benchmark a configuration with causal=False"
            )
        self.encoder_embed = Frontend(config)
        self.encoder = Encoder(config)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, 80) at 100 Hz, (N,) -> (N, T', output_dim) at 25 Hz, (N,)"""
        x = self.encoder_embed(features).transpose(0, 1)
        lengths = (lengths - 7) // 2
        padding = torch.arange(x.shape[0], device=x.device) >= lengths.to(x.device)[:, None]
        return self.encoder(x, padding).transpose(0, 1), (lengths + 1) // 2
