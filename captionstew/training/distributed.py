"""Processes: one, several on this machine (`--world-size N`), or many machines (torchrun)."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

TIMEOUT = timedelta(minutes=30)


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


def launch(function: Callable[..., None], world_size: int, master_port: int, device: str, *args: Any) -> None:
    """Calls function(rank, *args) in every process.

    Under torchrun (RANK is set) this process is one of many and the environment decides. Otherwise `world_size` local
    processes are started; if one dies, the others are ended and its error is raised here.
    """
    if "RANK" in os.environ:
        _run(
            int(os.environ["RANK"]),
            int(os.environ["LOCAL_RANK"]),
            int(os.environ["WORLD_SIZE"]),
            device,
            function,
            args,
        )
    elif world_size == 1:
        function(Rank(0, 0, 1, pick_device(device, 0)), *args)
    else:
        os.environ["MASTER_ADDR"] = "localhost"
        os.environ["MASTER_PORT"] = str(master_port)
        torch.multiprocessing.spawn(_run_local, (world_size, device, function, args), nprocs=world_size, join=True)


def pick_device(name: str, local_rank: int) -> torch.device:
    """`auto` takes a GPU where there is one. Raises ValueError if a GPU is asked for and absent."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ValueError(f"process {local_rank} needs its own GPU, but {torch.cuda.device_count()} are visible")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _run_local(rank: int, world_size: int, device: str, function: Callable, args: tuple) -> None:
    _run(rank, rank, world_size, device, function, args)


def _run(rank: int, local_rank: int, world_size: int, device_name: str, function: Callable, args: tuple) -> None:
    device = pick_device(device_name, local_rank)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=TIMEOUT)
    try:
        function(Rank(rank, local_rank, world_size, device), *args)
    finally:
        dist.destroy_process_group()


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def barrier() -> None:
    if is_distributed():
        dist.barrier()


def gather_rows(x: Tensor) -> tuple[Tensor, int]:
    """(n_r, D) of each rank -> ((sum of n_r, D), first row of this rank), with gradients to every rank.

    Ranks may hold different numbers of rows. The backward pass sums the gradients of all ranks' losses, so the sum of
    the local losses behaves like one loss on one process.
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
    """(n, D) -> (world_size, n, D); the gradient of a rank's rows is summed over the losses of all ranks."""

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
