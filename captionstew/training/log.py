"""Where a run's numbers go: one JSON line per record, TensorBoard, and Weights & Biases if asked
for.
"""

import json
import logging
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captionstew.files import parse_json

# what a run appends to while it trains, relative to its folder
LOGS = ("scalars.jsonl", "samples.jsonl", "failed-rank*.txt", "nonfinite-rank*.txt")


def start_logging(exp_dir: Path, rank: int, world_size: int) -> None:
    """Messages to stderr (rank 0) and to <exp_dir>/log/rank-<n>.txt (every rank)."""
    folder = exp_dir / "log"
    folder.mkdir(parents=True, exist_ok=True)
    place = f" (rank {rank})" if world_size > 1 else ""
    form = logging.Formatter(
        f"%(asctime)s{place} %(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"
    )
    handlers: list[logging.Handler] = [
        logging.FileHandler(folder / f"rank-{rank}.txt", encoding="utf-8")
    ]
    if rank == 0:
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(form)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)


class ScalarLog:
    """Records of named numbers by step; a disabled one (other ranks) ignores everything.

    TensorBoard forgets what an earlier process wrote of steps after `last_step`.
    """

    def __init__(
        self,
        exp_dir: Path,
        enabled: bool,
        tensorboard: bool,
        wandb: bool,
        config: dict[str, Any],
        last_step: int = 0,
    ) -> None:
        self._exp_dir = exp_dir
        self._lines = self._board = self._wandb = None
        if not enabled:
            return
        cut_off_half_a_line(exp_dir / "scalars.jsonl")
        self._lines = open(exp_dir / "scalars.jsonl", "a", encoding="utf-8")  # noqa: SIM115
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(exp_dir / "tensorboard"), purge_step=last_step + 1)
        if wandb:
            import wandb as client

            self._wandb = client.init(
                project="captionstew", name=exp_dir.name, dir=str(exp_dir), config=config
            )

    def write(self, kind: str, step: int, epoch: int, values: dict[str, float]) -> None:
        """Appends one record; `kind` is train or valid."""
        if self._lines is None:
            return
        record = {
            "kind": kind,
            "step": step,
            "epoch": epoch,
            "time": round(time.time(), 3),
            **values,
        }
        self._lines.write(json.dumps(record) + "\n")
        self._lines.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)
        if self._wandb is not None:
            self._wandb.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def write_samples(self, step: int, rows: Sequence[tuple[str, str, str]]) -> None:
        """Appends (cut id, caption, hypothesis) to samples.jsonl, and to TensorBoard as text."""
        if self._lines is None:
            return
        with open(self._exp_dir / "samples.jsonl", "a", encoding="utf-8") as file:
            for cut_id, caption, hypothesis in rows:
                record = {
                    "step": step,
                    "cut_id": cut_id,
                    "caption": caption,
                    "hypothesis": hypothesis,
                }
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        if self._board is not None:
            shown = "\n\n".join(
                f"{cut_id}: {caption}  \n{hypothesis}" for cut_id, caption, hypothesis in rows
            )
            self._board.add_text("samples", shown, step)

    def close(self) -> None:
        for sink in (self._lines, self._board):
            if sink is not None:
                sink.close()
        if self._wandb is not None:
            self._wandb.finish()


def log_sizes(exp_dir: Path) -> dict[str, int]:
    """Bytes of each log of a run, by name."""
    return {path.name: path.stat().st_size for name in LOGS for path in exp_dir.glob(name)}


def cut_logs(exp_dir: Path, sizes: dict[str, int], aside: Path | None) -> None:
    """Takes the logs back to earlier sizes; those that were not there then vanish.

    What is cut off goes to the folder `aside`, if there is one: the run that repeats these steps
    may be another.
    """
    for name, size in log_sizes(exp_dir).items():
        kept = sizes.get(name, 0)
        if size <= kept:
            continue
        with open(exp_dir / name, "r+b") as file:
            if aside is not None:
                file.seek(kept)
                aside.mkdir(exist_ok=True)
                with open(aside / name, "ab") as rest:
                    shutil.copyfileobj(file, rest)
            file.truncate(kept)
        if kept == 0:
            (exp_dir / name).unlink()


def cut_off_half_a_line(path: Path) -> None:
    """Removes what a killed run left after the last whole line, so that the next record does not
    become part of it.
    """
    if not path.is_file():
        return
    with open(path, "r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def read_scalars(exp_dir: Path) -> list[dict[str, Any]]:
    """Records of a run in order; after a resume the later record of a step replaces the earlier
    one.

    Raises:
      FileNotFoundError: the folder holds no run.
    """
    records: dict[tuple[str, int], dict[str, Any]] = {}
    with open(exp_dir / "scalars.jsonl", encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):  # a killed run may leave half a last line
                record = parse_json(line)
                records.pop((record["kind"], record["step"]), None)
                records[record["kind"], record["step"]] = record
    return list(records.values())
