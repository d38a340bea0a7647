"""SwooshL and SwooshR (Zipformer paper, section 3.4), alone and fused with the dropout and linear
layer that follow.

    SwooshL(x) = log(1 + exp(x - 4)) - 0.08 x - 0.035           slope = sigmoid(x - 4) - 0.08
    SwooshR(x) = log(1 + exp(x - 1)) - 0.08 x - 0.313261687     slope = sigmoid(x - 1) - 0.08

In the backward everything is recomputed from the input, so that nothing but the input is kept, and
slopes are exact.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from zipformer.randomness import StochasticModule
from zipformer.schedules import Rate

_LEAK = 0.08
LayerT = TypeVar("LayerT", nn.Linear, nn.Conv1d, nn.Conv2d)


class Swoosh(NamedTuple):
    """One of the two functions: log(1 + exp(x - shift)) - 0.08 x - offset."""

    name: str
    shift: float
    offset: float


SWOOSH_L = Swoosh("swoosh_l", 4.0, 0.035)
SWOOSH_R = Swoosh("swoosh_r", 1.0, 0.313261687)


def swoosh_value(x: Tensor, kind: Swoosh) -> Tensor:
    """(*) -> (*), float32 or wider: the value, stable for every x."""
    x = _wide(x)
    shifted = x - kind.shift
    value = (
        torch._C._nn.softplus(shifted, out=shifted)  # type: ignore[call-arg]  # a gap of the stubs
        if not shifted.requires_grad
        else F.softplus(shifted)
    )
    return value.sub_(x, alpha=_LEAK).sub_(kind.offset)


def swoosh_slope(x: Tensor, kind: Swoosh) -> Tensor:
    """(*) -> (*), float32 or wider: the derivative."""
    return (_wide(x) - kind.shift).sigmoid_().sub_(_LEAK)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _k2():
    try:
        import k2
    except ImportError as error:
        raise ImportError(
            "swoosh_backend 'k2' needs the k2 library (https://k2-fsa.github.io/k2); install it for"
            " your torch, or use swoosh_backend 'torch', which needs nothing"
        ) from error
    return k2


class _SwooshFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, kind: Swoosh) -> Tensor:
        ctx.save_for_backward(x)
        ctx.kind = kind
        return swoosh_value(x, kind).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (x,) = ctx.saved_tensors
        return swoosh_slope(x, ctx.kind).mul_(grad).to(x.dtype), None


def swoosh(x: Tensor, kind: Swoosh, backend: str = "torch") -> Tensor:
    """(*) -> (*), differentiable, type of x."""
    if backend == "k2":
        return getattr(_k2(), kind.name)(x)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return swoosh_value(x, kind).to(x.dtype)
    return _SwooshFunction.apply(x, kind)


class SwooshR(nn.Module):
    """The stand-alone activation of the frontend."""

    def __init__(self, backend: str = "torch") -> None:
        super().__init__()
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        """(*) -> (*)"""
        return swoosh(x, SWOOSH_R, self.backend)


def _value_and_slope(x: Tensor, kind: Swoosh, backend: str) -> tuple[Tensor, Tensor]:
    if backend == "k2":
        return getattr(_k2(), f"{kind.name}_forward_and_deriv")(x)
    return swoosh_value(x, kind), swoosh_slope(x, kind)


def _value(x: Tensor, kind: Swoosh, backend: str) -> Tensor:
    if backend == "k2":
        return getattr(_k2(), f"{kind.name}_forward")(x)
    return swoosh_value(x, kind)


class _SwooshLinear(torch.autograd.Function):
    """y = (mask * swoosh(x)) W^T + b; keeps x, mask and W.

    dx = (dy W) * slope * mask        dW = dy^T (mask * swoosh(x))        db = sum dy
    """

    @staticmethod
    def forward(ctx, x, mask, weight, bias, kind: Swoosh, backend: str) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        ctx.save_for_backward(x, mask, weight, bias)
        ctx.settings = kind, backend, dtype
        with torch.autocast(device, enabled=False):
            active = _value(x, kind, backend)
            if mask is not None:
                active = active.mul_(mask)
            return F.linear(
                active.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
            )

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, mask, weight, bias = ctx.saved_tensors
        kind, backend, dtype = ctx.settings
        grad = grad.to(dtype)
        flat = grad.reshape(-1, grad.shape[-1])
        with torch.autocast(grad.device.type, enabled=False):
            active, slope = _value_and_slope(x, kind, backend)
            if mask is not None:
                active, slope = active.mul_(mask), slope.mul_(mask)
            grad_weight = flat.t() @ active.to(dtype).reshape(-1, x.shape[-1])
            grad_x = slope.mul_(grad @ weight.to(dtype)).to(x.dtype)
        grad_bias = None if bias is None else flat.sum(dim=0).to(bias.dtype)
        return grad_x, None, grad_weight.to(weight.dtype), grad_bias, None, None


def swoosh_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kind: Swoosh,
    backend: str = "torch",
    mask: Tensor | None = None,
) -> Tensor:
    """(..., C), (D, C), (D) -> (..., D): linear layer of the (masked) activation."""
    return _SwooshLinear.apply(x, mask, weight, bias, kind, backend)


class SwooshDropoutLinear(StochasticModule, nn.Linear):
    """Linear(dropout(swoosh(x))) with the dropout mask (N, 1, C) shared over time."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kind: Swoosh,
        dropout: Rate | None = None,
        initial_scale: float = 1.0,
        backend: str = "torch",
    ) -> None:
        super().__init__(in_features, out_features)
        self.kind = kind
        self.backend = backend
        self.dropout_p = Rate((0.0, 0.0)) if dropout is None else dropout
        scale_initial_(self, initial_scale)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) -> (N, T, D)"""
        mask = self.dropout_mask(self.dropout_p, (x.shape[0], 1, x.shape[2]), x)
        return swoosh_linear(x, self.weight, self.bias, self.kind, self.backend, mask)


@torch.no_grad()
def scale_initial_(layer: LayerT, scale: float) -> LayerT:
    """Multiplies the default weight of a fresh layer by `scale` and draws its bias from U(-0.1
    scale, 0.1 scale).
    """
    layer.weight.mul_(scale)
    if layer.bias is not None:
        layer.bias.uniform_(-0.1 * scale, 0.1 * scale)
    return layer
