"""BiasNorm, the encoder's only normalisation (Zipformer paper, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from zipformer.randomness import StochasticModule
from zipformer.regularisers import LIMIT_PARAM_PROBABILITY, limit_param


class _BiasNorm(torch.autograd.Function):
    """y = x s with s = exp(log_scale) / sqrt(mean_c (x_c - bias_c)^2); only x and s are kept.

    With g the gradient of y, a = sum_c g_c x_c and h = s a / (C v), v the mean square above:

        dx = s g - h (x - bias)
        dbias = sum over positions of h (x - bias),   dlog_scale = sum of g y
    """

    @staticmethod
    def forward(ctx, x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
        scale = _scales(x, bias, log_scale)
        ctx.save_for_backward(x, bias, log_scale, scale)
        return x * scale

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, bias, log_scale, scale = ctx.saved_tensors
        grad, wide = grad.float(), x.float()
        projection = (grad * wide).sum(dim=-1, keepdim=True)  # a
        inverse_variance = (scale / log_scale.exp()).square()
        coefficient = scale * projection * inverse_variance / x.shape[-1]  # h
        correction = (wide - bias).mul_(coefficient)
        grad_bias = correction.reshape(-1, x.shape[-1]).sum(dim=0)
        grad_x = torch.addcmul(correction.neg_(), grad, scale)
        return (
            grad_x.to(x.dtype),
            grad_bias.to(bias.dtype),
            (projection * scale).sum().to(log_scale.dtype),
        )


def _scales(x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
    rms = torch.linalg.vector_norm(x - bias, dim=-1, keepdim=True).mul_(x.shape[-1] ** -0.5)
    return log_scale.exp() / rms


class BiasNorm(StochasticModule):
    """Divides each frame by the root mean square of its distance from a learned bias; the bias
    stays in the output.
    """

    limits = -1.5, 1.5

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.empty(num_channels).normal_(mean=0.0, std=1e-4))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)"""
        if not torch.is_grad_enabled():
            return x * _scales(x, self.bias, self.log_scale)
        log_scale: Tensor = self.log_scale
        if self.training and self.randomness.decide(LIMIT_PARAM_PROBABILITY):
            log_scale = limit_param(log_scale, *self.limits)
        return _BiasNorm.apply(x, self.bias, log_scale)
