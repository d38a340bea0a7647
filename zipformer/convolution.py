"""Convolution module of the encoder layer, with the chunk-causal variant of its depthwise
convolution.

Sizes: N batch, T frames, D channels, K kernel, c frames per chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from zipformer.activations import SWOOSH_R, SwooshDropoutLinear, scale_initial_
from zipformer.regularisers import Balancer, Whiten
from zipformer.schedules import ScheduledFloat
from zipformer.sequences import Frames


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """(N, T, D), (D, 1, K), (D) -> (N, T + 2 padding - K + 1, D), channels last throughout"""
    if x.device.type == "cpu" and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
        return _DepthwiseOnCpu.apply(x, weight, bias, padding)
    return _depthwise(x, weight, bias, padding)


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    image = x.transpose(1, 2).unsqueeze(
        2
    )  # (N, D, 1, T), which in memory is an image with channels last
    out = F.conv2d(image, weight.unsqueeze(2), bias, padding=(0, padding), groups=weight.shape[0])
    return out.squeeze(2).transpose(1, 2)


class _DepthwiseOnCpu(torch.autograd.Function):
    """The same convolution with a weight gradient of its own: oneDNN's takes several times longer
    on a CPU.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return _depthwise(x, weight, bias, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        kernel = weight.shape[2]
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _depthwise(grad, weight.flip(2), None, kernel - 1 - ctx.padding)
        if ctx.needs_input_grad[1]:
            grad_weight = _depthwise_grad_weight(x, grad, kernel, ctx.padding)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(dim=(0, 1))
        return grad_x, grad_weight, grad_bias, None


def _depthwise_grad_weight(
    x: Tensor, grad: Tensor, kernel: int, padding: int, block: int = 16
) -> Tensor:
    """(N, T, D), (N, T', D) -> (D, 1, K): dW[d, k] = sum over n, t of x[n, t + k - padding, d]
    grad[n, t, d]

    As matrix products: time is cut into blocks; of the products of a block of the gradient with all
    inputs it sees, (block + K - 1, block) summed over all blocks, the k-th diagonal sums to dW[d,
    k].
    """
    n, t, d = grad.shape
    blocks = -(-t // block)
    window = block + kernel - 1
    length = blocks * block + kernel - 1
    x = F.pad(x, (0, 0, padding, length - padding - x.shape[1])).permute(2, 0, 1).contiguous()
    grad = F.pad(grad, (0, 0, 0, blocks * block - t)).permute(2, 0, 1).reshape(d, n * blocks, block)
    windows = x.unfold(2, window, block).reshape(d, n * blocks, window)
    products = torch.bmm(windows.transpose(1, 2), grad)
    diagonals = products.as_strided((d, kernel, block), (window * block, block, block + 1))
    return diagonals.sum(dim=2).unsqueeze(1)


class DepthwiseConv(nn.Conv1d):
    """Depthwise convolution over time with zeros outside the sequence."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__(dim, dim, kernel, groups=dim, padding=kernel // 2)

    # A Conv1d for its parameters alone; it is called as ChunkCausalDepthwiseConv is.
    def forward(self, x: Tensor, frames: Frames) -> Tensor:  # type: ignore[override]
        """(N, T, D) -> (N, T, D)"""
        return depthwise(x, self.weight, self.bias, self.kernel_size[0] // 2)


class ChunkCausalDepthwiseConv(nn.Module):
    """A causal convolution plus one that sees only its own chunk, scaled by the position inside the
    chunk.
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.causal_conv = scale_initial_(nn.Conv1d(dim, dim, (kernel + 1) // 2, groups=dim), 1.0)
        self.chunkwise_conv = nn.Conv1d(dim, dim, kernel, groups=dim)
        self.chunkwise_conv_scale = nn.Parameter(torch.zeros(2, dim, kernel))

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """(N, T, D) -> (N, T, D)"""
        n, t, d = x.shape
        half = self.kernel // 2
        chunk = t if frames.chunk_size < 0 else min(frames.chunk_size, t)
        causal = depthwise(
            F.pad(x, (0, 0, half, 0)), self.causal_conv.weight, self.causal_conv.bias, 0
        )
        chunks = F.pad(x, (0, 0, 0, -t % chunk)).view(-1, chunk, d)
        inside = depthwise(chunks, self.chunkwise_conv.weight, self.chunkwise_conv.bias, half)
        edges = self._edge_factor(chunk, frames.lengths, x.device).unsqueeze(1)  # (1 or N, 1, c, D)
        inside = (inside.reshape(n, -1, chunk, d) * edges).flatten(1, 2)
        return causal + inside[:, :t]

    def _edge_factor(self, chunk: int, lengths: Tensor | None, device: torch.device) -> Tensor:
        """Factor g of every position j of a chunk, (1, c, D), or (N, c, D) where items are shorter
        than a chunk.

            g[j] = 1 + left[j] + right[j + K - c],   left, right (D, K) are zero outside 0 .. K-1

        An item alone shorter than a chunk has its length as chunk size.
        """
        sizes = (
            torch.tensor([chunk], device=device)
            if lengths is None
            else lengths.clamp(min=1, max=chunk)
        )
        position = torch.arange(chunk, device=device).expand(sizes.shape[0], -1)
        left, right = F.pad(self.chunkwise_conv_scale, (0, 1)).transpose(
            1, 2
        )  # (K + 1, D), the last row zero
        return (
            1.0
            + left[self._inside(position)]
            + right[self._inside(position + self.kernel - sizes[:, None])]
        )

    def _inside(self, index: Tensor) -> Tensor:
        return torch.where((index < 0) | (index >= self.kernel), self.kernel, index)


class ConvolutionModule(nn.Module):
    """Gated linear unit, depthwise convolution, SwooshR, linear."""

    def __init__(self, dim: int, kernel: int, causal: bool, backend: str = "torch") -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, 2 * dim)
        self.balancer1 = Balancer(
            dim,
            min_positive=ScheduledFloat((0.0, 0.05), (8000.0, 0.025)),
            max_positive=1.0,
            min_abs=1.5,
            max_abs=ScheduledFloat((0.0, 5.0), (8000.0, 10.0), default=1.0),
        )
        self.depthwise_conv = (
            ChunkCausalDepthwiseConv(dim, kernel) if causal else DepthwiseConv(dim, kernel)
        )
        self.balancer2 = Balancer(
            dim,
            min_positive=ScheduledFloat((0.0, 0.1), (8000.0, 0.05)),
            max_positive=1.0,
            min_abs=ScheduledFloat((0.0, 0.2), (20000.0, 0.5)),
            max_abs=10.0,
        )
        self.whiten = Whiten(1, ScheduledFloat((0.0, 7.5), (20000.0, 15.0), default=7.5))
        self.out_proj = SwooshDropoutLinear(dim, dim, SWOOSH_R, initial_scale=0.05, backend=backend)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """(N, T, D) -> (N, T, D)"""
        x = self._gated(self.in_proj(x))
        if frames.padding is not None:
            x = x.masked_fill(frames.padding[..., None], 0.0)
        x = self.balancer2(self.depthwise_conv(x, frames))
        return self.out_proj(self.whiten(x))

    def _gated(self, x: Tensor) -> Tensor:
        """(N, T, 2D) -> (N, T, D): first half times sigmoid of the second"""
        gate = x[..., x.shape[-1] // 2 :]
        balanced = self.balancer1(gate)
        if balanced is gate:
            return F.glu(x, dim=-1)
        return x[..., : x.shape[-1] // 2] * torch.sigmoid(balanced)
