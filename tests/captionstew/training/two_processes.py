"""Two processes that meet, and then what the first argument says. The tests of launch run it."""

import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from captionstew.distributed import (
    Rank,
    any_rank,
    barrier,
    gather_objects,
    main_first,
    sum_gradients,
)
from captionstew.errors import run_main
from captionstew.training.launch import launch


def work(rank: Rank, what: str, folder: Path) -> None:
    (folder / f"pid-{rank.rank}").write_text(str(os.getpid()))
    barrier()
    other = rank.rank == 1
    if what == "value" and other:
        raise ValueError("--epoch 9: no such\nepoch")
    if what == "bug" and other:
        raise KeyError("x")
    if what == "sigkill" and other:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "sigterm":
        stopped = []
        signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
        (folder / f"ready-{rank.rank}").touch()
        while not any_rank([bool(stopped)], rank.device)[0]:
            time.sleep(0.01)
        (folder / f"saved-{rank.rank}").touch()
        return
    if what == "gradients":
        model = torch.nn.Linear(1, 1)
        model.weight.grad = torch.full((1, 1), float(rank.rank + 1))
        sum_gradients(model)
        summed = gather_objects((model.weight.grad.item(), model.bias.grad.item()))
        (folder / f"summed-{rank.rank}").write_text(str(summed))
        return
    if what == "main first":
        with main_first(rank):
            time.sleep(0.5 if rank.is_main else 0)
            with open(folder / "order", "a") as file:
                file.write(f"{rank.rank} ")
        return
    (folder / f"ready-{rank.rank}").touch()
    while True:  # what a process does that nobody has told about the end of the other
        dist.all_reduce(torch.zeros(1))
        time.sleep(0.01)


def main() -> None:
    what, folder, port = sys.argv[1:]
    launch(work, 2, int(port), "cpu", what, Path(folder))


if __name__ == "__main__":
    run_main(main)
