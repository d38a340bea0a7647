"""Gradient modifiers: the identity in the forward, a correction of the gradient in the backward.

They act in training mode only, only on inputs that need a gradient, and each only on a random part
of the calls. A modifier that does not act returns its argument itself and leaves no trace in the
graph. All are closed forms; nothing here calls autograd inside a backward.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zipformer.randomness import StochasticModule
from zipformer.schedules import ScheduledFloat


class _ScaleGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad * ctx.factor, None


class ScaleGrad(StochasticModule):
    """Multiplies the gradient by a constant in training."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """(*) -> (*)"""
        return _ScaleGrad.apply(x, self.factor) if self.training and x.requires_grad else x


class _LimitParam(torch.autograd.Function):
    @staticmethod
    def forward(ctx, p: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(p)
        ctx.limits = low, high
        return p.view_as(p)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (p,) = ctx.saved_tensors
        low, high = ctx.limits
        outward = ((p < low) & (grad > 0)) | ((p > high) & (grad < 0))
        return torch.where(outward, -grad, grad), None, None


def limit_param(p: Tensor, low: float, high: float) -> Tensor:
    """(*) -> (*): turns round the gradient of every entry outside [low, high] whose update would
    lead further out.
    """
    return _LimitParam.apply(p, low, high) if p.requires_grad else p


LIMIT_PARAM_PROBABILITY = 0.6


class _PenalizeAbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, limit: float, penalty: float) -> Tensor:
        # One byte per element; x itself would keep a second quadratic tensor alive.
        ctx.save_for_backward((x > limit).to(torch.int8) - (x < -limit).to(torch.int8))
        ctx.penalty = penalty
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (sign,) = ctx.saved_tensors
        return torch.add(grad, sign, alpha=ctx.penalty), None, None


def penalize_abs(x: Tensor, limit: float, penalty: float) -> Tensor:
    """(*) -> (*): adds the gradient of penalty * sum(relu(|x| - limit)), whatever gradient
    arrives.
    """
    return _PenalizeAbs.apply(x, limit, penalty) if x.requires_grad else x


def _half_log_odds(z: float) -> float:
    return 0.5 * (math.log(1.0 + z + 1e-10) - math.log(1.0 - z + 1e-10))


# For a normal variable with mean m and standard deviation 1: share of positive values p -> m,
# roughly; mean absolute value -> root mean square, sqrt(pi / 2).
def _share_to_mean(share: float) -> float:
    return 0.8139535143 * _half_log_odds(2.0 * share - 1.0)


_ABS_TO_RMS = math.sqrt(math.pi / 2.0)
_TINY = 1e-20


class _Balance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, x: Tensor, channel_dim: int, limits: tuple[float, float, float, float], scale: float
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.settings = channel_dim, limits, scale
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (x,) = ctx.saved_tensors
        channel_dim, limits, scale = ctx.settings
        with torch.autocast(grad.device.type, enabled=False):
            change = balancer_change(x.movedim(channel_dim, -1).float(), limits, scale)
            if change is None:
                return grad, None, None, None
            moved = grad.movedim(channel_dim, -1).float()
            new = change.mul_(moved.abs()).add_(moved)
        return new.movedim(-1, channel_dim).to(grad.dtype), None, None, None


def balancer_change(
    x: Tensor, limits: tuple[float, float, float, float], scale: float
) -> Tensor | None:
    """(..., C) -> (..., C): relative change of the gradient that brings a channel's statistics
    inside the limits.

    With mean mu, mean square q, sigma^2 = q - mu^2, rho^2 = q over the n entries of a channel, the
    loss per channel is

        | mu/sigma - clamp(mu/sigma, lo_m, hi_m) |  +  | ln( clamp(rho, lo_r, hi_r) / rho ) |

    Its derivative is affine in x: with a, b in {-1, 0, 1} telling on which side of its limits each
    statistic lies,

        e = a (1/(n sigma) - mu (x - mu)/(n sigma^3)) + b x/(n rho^2) = level + slope (x - mu)

    which is scaled to a root mean square of `scale` per channel: mean e^2 = level^2 + slope^2
    sigma^2. None if every channel is inside its limits (asked on the CPU only, where it costs no
    synchronisation).
    """
    low_m, high_m, low_r, high_r = limits
    flat = x.reshape(-1, x.shape[-1])
    n = flat.shape[0]
    mean = flat.mean(dim=0)
    # From centred data: in float32 q - mu^2 is noise where the mean is large beside the deviation.
    centred = flat - mean
    variance = torch.linalg.vector_norm(centred, dim=0).square_().div_(n)
    square = variance + mean * mean
    sigma, rho = variance.clamp(min=_TINY).sqrt(), square.clamp(min=_TINY).sqrt()
    ratio = mean / sigma
    a = (ratio > high_m).to(x.dtype) - (ratio < low_m).to(x.dtype)
    b = (rho > high_r).to(x.dtype) - (rho < low_r).to(x.dtype)
    if x.device.type == "cpu" and not (a.any() or b.any()):
        return None
    # Degenerate channels: there the clamps above have no derivative.
    b = b * (square > _TINY)
    level = a / sigma + b * mean / (rho * rho)
    slope = b / (rho * rho) - a * mean / sigma.pow(3) * (variance > _TINY)
    norm = (level.square() + slope.square() * variance).sqrt_().div_(n).clamp_(min=_TINY)
    factor = scale / (norm * n)
    return torch.addcmul(level * factor, centred, slope * factor).view(x.shape)


def _value(number: ScheduledFloat | float) -> float:
    return number.value if isinstance(number, ScheduledFloat) else number


class Balancer(StochasticModule):
    """Keeps the share of positive values and the mean absolute value of every channel inside
    limits.

    Args:
        num_channels, channel_dim: size and position of the channel dimension.
        min_positive, max_positive: limits of the share of positive values.
        min_abs, max_abs: limits of the mean absolute value.
        prob: share of the calls in which it acts.
        grad_scale: size of the correction relative to each element's gradient.
    """

    def __init__(
        self,
        num_channels: int,
        channel_dim: int = -1,
        min_positive: ScheduledFloat | float = 0.05,
        max_positive: ScheduledFloat | float = 0.95,
        min_abs: ScheduledFloat | float = 0.2,
        max_abs: ScheduledFloat | float = 100.0,
        prob: ScheduledFloat | float | None = None,
        grad_scale: float = 0.04,
    ) -> None:
        super().__init__()
        self.num_channels, self.channel_dim = num_channels, channel_dim
        self.min_positive, self.max_positive = min_positive, max_positive
        self.min_abs, self.max_abs = min_abs, max_abs
        self.prob = (
            ScheduledFloat((0.0, 0.5), (8000.0, 0.125), default=0.4) if prob is None else prob
        )
        self.grad_scale = grad_scale

    def forward(self, x: Tensor) -> Tensor:
        """(..., C, ...) -> the same"""
        if not (self.training and x.requires_grad and self.randomness.decide(_value(self.prob))):
            return x
        if x.shape[self.channel_dim] != self.num_channels:
            raise ValueError(
                f"Balancer for {self.num_channels} channels got shape {tuple(x.shape)}"
            )
        limits = (
            _share_to_mean(_value(self.min_positive)),
            _share_to_mean(_value(self.max_positive)),
            _ABS_TO_RMS * _value(self.min_abs),
            _ABS_TO_RMS * _value(self.max_abs),
        )
        return _Balance.apply(x, self.channel_dim, limits, self.grad_scale)


class _Whitening(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, module: Whiten) -> Tensor:
        ctx.save_for_backward(x)
        ctx.module = module
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (x,) = ctx.saved_tensors
        module = ctx.module
        with torch.autocast(grad.device.type, enabled=False):
            metric, direction = whitening_direction(
                x.float(), module.num_groups, _value(module.whitening_limit)
            )
            module.prob = module.min_prob if direction is None else module.max_prob
            if direction is None:
                return grad, None
            wide = grad.float()
            factor = module.grad_scale * wide.norm() / (direction.norm() + _TINY)
            return torch.addcmul(wide, direction, factor).to(grad.dtype), None


def whitening_direction(x: Tensor, num_groups: int, limit: float) -> tuple[Tensor, Tensor | None]:
    """(..., C) -> metric (), its derivative (..., C) or None if the metric is below the limit.

    For the centred frames X_g (n, C/G) of every group and S_g = X_g^T X_g:

        M1 = sum_g tr(S_g) / C,   M2 = sum_g ||S_g||^2 / C,   D = M1^2 + 1e-20,   metric = M2 / D
        d metric / dX_g = 4 / (C D) * X_g (S_g - M1 M2 / D)

    The metric is 1 for white data and grows with the spread of the eigenvalues of the covariance.
    """
    channels = x.shape[-1]
    frames = x.reshape(-1, channels)
    frames = frames - frames.mean(dim=0)
    groups = frames.view(-1, num_groups, channels // num_groups).transpose(0, 1)  # (G, n, C/G)
    covariance = torch.bmm(groups.transpose(1, 2), groups)
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    m1 = diagonal.sum() / channels
    m2 = covariance.square().sum() / channels
    denominator = m1 * m1 + _TINY
    metric = m2 / denominator
    if metric < limit:
        return metric, None
    diagonal.sub_(m1 * m2 / denominator)
    covariance.mul_(4.0 / (channels * denominator))
    return metric, torch.bmm(groups, covariance).transpose(0, 1).reshape(x.shape)


class Whiten(StochasticModule):
    """Pushes the covariance of the channels, in groups, towards a multiple of the identity while it
    is far from it.

    Args:
        num_groups: groups of contiguous channels.
        whitening_limit: value of the metric (see `whitening_direction`) above which it acts.
        grad_scale: norm of the correction relative to the norm of the gradient.

    `prob`, the share of calls in which it looks, is `max_prob` after a call above the limit and
    `min_prob` after one below. It is state of the training that no state dict holds;
    `zipformer.training_state` does.
    """

    min_prob, max_prob = 0.025, 0.25

    def __init__(
        self, num_groups: int, whitening_limit: ScheduledFloat | float, grad_scale: float = 0.01
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.whitening_limit = whitening_limit
        self.grad_scale = grad_scale
        self.prob = self.max_prob

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)"""
        if not (self.training and x.requires_grad and self.randomness.decide(self.prob)):
            return x
        return _Whitening.apply(x, self)
