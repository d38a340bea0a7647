"""What several processes do together; with one process every function here is a no-op."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Rank:
    """Place of this process among all processes."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def pick_device(name: str, local_rank: int) -> torch.device:
    """`auto` takes a GPU where there is one. Raises ValueError if a GPU is asked for and absent."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"process {local_rank} needs its own GPU, but {torch.cuda.device_count()} are visible"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    """Number of processes that work together."""
    return dist.get_world_size() if is_distributed() else 1


def barrier() -> None:
    if is_distributed():
        dist.barrier()


@contextmanager
def main_first(rank: Rank) -> Iterator[None]:
    """The others enter the block when the main process has left it, be it after days, when a
    barrier would give up.
    """
    group = dist.new_group(backend="gloo", timeout=timedelta(days=30)) if is_distributed() else None
    if group is not None and not rank.is_main:
        dist.barrier(group)
    yield
    if group is not None and rank.is_main:
        dist.barrier(group)


def gather_rows(x: Tensor) -> tuple[Tensor, int]:
    """(n_r, D) of each rank -> ((sum of n_r, D), first row of this rank), with gradients to every
    rank.

    Ranks may hold different numbers of rows. The backward pass sums the gradients of all ranks'
    losses, so the sum of the local losses behaves like one loss on one process.
    """
    if not is_distributed():
        return x, 0
    counts = torch.zeros(dist.get_world_size(), dtype=torch.long, device=x.device)
    counts[dist.get_rank()] = x.size(0)
    dist.all_reduce(counts)
    sizes = counts.tolist()
    longest = max(sizes)
    padded = torch.cat([x, x.new_zeros(longest - x.size(0), *x.shape[1:])])
    blocks = _AllGather.apply(padded)
    rows = torch.cat([blocks[rank, :size] for rank, size in enumerate(sizes)])
    return rows, sum(sizes[: dist.get_rank()])


class _AllGather(torch.autograd.Function):
    """(n, D) -> (world_size, n, D); the gradient of a rank's rows is summed over the losses of all
    ranks.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        blocks = x.new_empty(dist.get_world_size(), *x.shape)
        dist.all_gather(list(blocks.unbind()), x.contiguous())
        return blocks

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad[dist.get_rank()]


def gather_objects(value: Any) -> list[Any]:
    """One value per rank, in rank order, on every rank."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def sum_over_ranks(values: list[float], device: torch.device) -> list[float]:
    """Elementwise sum over ranks, in float64."""
    total = torch.tensor(values, dtype=torch.float64, device=device)
    if is_distributed():
        dist.all_reduce(total)
    return total.tolist()


def any_rank(conditions: list[Any], device: torch.device) -> list[bool]:
    """For each condition: does it hold on any rank?"""
    return [
        count > 0
        for count in sum_over_ranks([float(condition) for condition in conditions], device)
    ]


@torch.no_grad()
def sum_gradients(model: nn.Module) -> None:
    """Adds up the gradients of all ranks, in place; a parameter without one counts as zero."""
    if not is_distributed():
        return
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
