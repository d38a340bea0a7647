"""Activations, dropout, normalisation and gradient modifiers of the plain Zipformer; see
`plain_zipformer.py`.
"""

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zipformer.schedules import Rate, ScheduledFloat, ScheduledModule


def swoosh_l(x: Tensor) -> Tensor:
    return F.softplus(x - 4.0) - 0.08 * x - 0.035


def swoosh_r(x: Tensor) -> Tensor:
    return F.softplus(x - 1.0) - 0.08 * x - 0.313261687


class SwooshR(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return swoosh_r(x)


def scaled(layer: nn.Module, scale: float) -> nn.Module:
    """The layer with its fresh weight times `scale` and its bias from U(-0.1 scale, 0.1 scale)."""
    with torch.no_grad():
        layer.weight *= scale
        if layer.bias is not None:
            layer.bias.uniform_(-0.1 * scale, 0.1 * scale)
    return layer


def keep_mask(shape: tuple[int, ...], rate: float, like: Tensor) -> Tensor:
    return (torch.rand(shape, device=like.device) > rate).to(like.dtype)


class Dropout(ScheduledModule):
    """Dropout whose mask is shared over one dimension, or is elementwise."""

    def __init__(self, p: Rate, shared_dim: int | None = None):
        super().__init__()
        self.p, self.shared_dim = p, shared_dim

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p.value == 0.0:
            return x
        shape = list(x.shape)
        if self.shared_dim is not None:
            shape[self.shared_dim] = 1
        return x * keep_mask(shape, self.p.value, x) / (1.0 - self.p.value)


class ScaleGradFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.factor, None


class ScaleGrad(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return ScaleGradFunction.apply(x, self.factor) if self.training else x


class LimitParameter(torch.autograd.Function):
    """Turns round gradients that would lead a parameter further out of [low, high]."""

    @staticmethod
    def forward(ctx, p, low, high):
        ctx.save_for_backward(p)
        ctx.low, ctx.high = low, high
        return p.view_as(p)

    @staticmethod
    def backward(ctx, grad):
        (p,) = ctx.saved_tensors
        outward = ((p < ctx.low) & (grad > 0)) | ((p > ctx.high) & (grad < 0))
        return torch.where(outward, -grad, grad), None, None


class PenalizeLarge(torch.autograd.Function):
    """Adds the gradient of penalty * sum(relu(|x| - limit))."""

    @staticmethod
    def forward(ctx, x, limit, penalty):
        ctx.save_for_backward(x)
        ctx.limit, ctx.penalty = limit, penalty
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad + ctx.penalty * torch.sign(x) * (x.abs() > ctx.limit), None, None


class BalancerFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, module):
        ctx.save_for_backward(x)
        ctx.module = module
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        (x,), module = ctx.saved_tensors, ctx.module
        low_m, high_m, low_r, high_r = module.limits()
        others = [dim for dim in range(x.ndim) if dim != module.channel_dim % x.ndim]
        with torch.enable_grad():
            x = x.detach().float().requires_grad_(True)
            mean = x.mean(dim=others, keepdim=True)
            square = (x * x).mean(dim=others, keepdim=True)
            sigma = (square - mean * mean).clamp(min=1e-20).sqrt()
            rho = square.clamp(min=1e-20).sqrt()
            m = mean / sigma
            loss = (m - m.clamp(low_m, high_m)).abs() + (rho.clamp(low_r, high_r) / rho).log().abs()
            (e,) = torch.autograd.grad(loss.sum(), x)
        e = e * (module.grad_scale / (e * e).mean(dim=others, keepdim=True).sqrt().clamp(min=1e-20))
        return grad + (grad.abs() * e).to(grad.dtype), None


def value(number: ScheduledFloat | float) -> float:
    return number.value if isinstance(number, ScheduledFloat) else number


class Balancer(ScheduledModule):
    """Keeps each channel's share of positive values and mean absolute value inside limits, through
    the gradient.
    """

    def __init__(self, channel_dim, min_positive, max_positive, min_abs, max_abs, prob=None):
        super().__init__()
        self.channel_dim, self.grad_scale = channel_dim, 0.04
        self.min_positive, self.max_positive = min_positive, max_positive
        self.min_abs, self.max_abs = min_abs, max_abs
        self.prob = (
            ScheduledFloat((0.0, 0.5), (8000.0, 0.125), default=0.4) if prob is None else prob
        )

    def limits(self) -> tuple[float, float, float, float]:
        def mean(share: float) -> float:
            z = 2.0 * share - 1.0
            return 0.8139535143 * 0.5 * (math.log(1.0 + z + 1e-10) - math.log(1.0 - z + 1e-10))

        def rms(absolute: float) -> float:
            return math.sqrt(math.pi / 2.0) * absolute

        return (
            mean(value(self.min_positive)),
            mean(value(self.max_positive)),
            rms(value(self.min_abs)),
            rms(value(self.max_abs)),
        )

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not x.requires_grad or random.random() >= value(self.prob):
            return x
        return BalancerFunction.apply(x, self)


class WhitenFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, module):
        ctx.save_for_backward(x)
        ctx.module = module
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        (x,), module = ctx.saved_tensors, ctx.module
        with torch.enable_grad():
            x = x.detach().float().requires_grad_(True)
            metric = whitening_metric(x, module.num_groups)
            if metric < value(module.limit):
                module.prob = module.min_prob
                return grad, None
            module.prob = module.max_prob
            metric.backward()
        factor = module.grad_scale * grad.float().norm() / (x.grad.norm() + 1e-20)
        return grad + (x.grad * factor).to(grad.dtype), None


def whitening_metric(x: Tensor, num_groups: int) -> Tensor:
    """(..., C) -> (): 1 if the covariance of the channels of each group is a multiple of the
    identity, else more.
    """
    channels = x.shape[-1]
    x = x.reshape(-1, num_groups, channels // num_groups).transpose(0, 1)
    x = x - x.mean(dim=1, keepdim=True)
    covariance = torch.matmul(x.transpose(1, 2), x)
    m1 = covariance.diagonal(dim1=1, dim2=2).sum() / channels
    m2 = (covariance * covariance).sum() / channels
    return m2 / (m1 * m1 + 1e-20)


class Whiten(ScheduledModule):
    min_prob, max_prob = 0.025, 0.25

    def __init__(self, num_groups: int, limit: ScheduledFloat | float, grad_scale: float = 0.01):
        super().__init__()
        self.num_groups, self.limit, self.grad_scale, self.prob = (
            num_groups,
            limit,
            grad_scale,
            self.max_prob,
        )

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not x.requires_grad or random.random() > self.prob:
            return x
        return WhitenFunction.apply(x, self)


class BiasNorm(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.randn(channels) * 1e-4)

    def forward(self, x: Tensor) -> Tensor:
        log_scale = self.log_scale
        if self.training and random.random() < 0.6:
            log_scale = LimitParameter.apply(log_scale, -1.5, 1.5)
        return x * log_scale.exp() / ((x - self.bias) ** 2).mean(dim=-1, keepdim=True).sqrt()
