"""Batches that cannot be trained on: unreadable clips, losses or gradients that are NaN or
infinite.
"""

import logging
from collections.abc import Sequence
from typing import NoReturn

from torch import Tensor

from captionstew.checkpoint import save_checkpoint
from captionstew.data.batches.dataset import Batch
from captionstew.errors import UserError
from captionstew.training.state import TrainerState


class TrainingStopped(UserError):
    """Training cannot go on; the message says why and what was saved."""


def list_failed(trainer: TrainerState, batch: Batch) -> None:
    """Writes down the clips that could not be read, with the reason."""
    if batch["failed"]:
        path = trainer.flags.exp_dir / f"failed-rank{trainer.rank.rank}.txt"
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(
                f"{cut_id}\t{' '.join(reason.split())}\n" for cut_id, reason in batch["failed"]
            )


def leave_out(trainer: TrainerState, batches: Sequence[Batch], what: str) -> None:
    """Counts a step without finite numbers, lists its clips, and stops when there were too many.

    Raises:
      TrainingStopped: more than --max-nonfinite of them.
    """
    trainer.nonfinite += 1
    ids = " ".join(cut_id for batch in batches for cut_id in batch["cut_ids"])
    path = trainer.flags.exp_dir / f"nonfinite-rank{trainer.rank.rank}.txt"
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"step {trainer.step} epoch {trainer.epoch} {what}: {ids}\n")
    logging.warning(
        "%s is NaN or infinite, batch %d of this kind left out", what, trainer.nonfinite
    )
    if trainer.nonfinite > trainer.flags.max_nonfinite:
        stop_with_evidence(
            trainer, batches, f"{trainer.nonfinite} batches had a NaN or infinite {what}"
        )


def stop_out_of_memory(trainer: TrainerState, batch: Batch, error: Exception) -> NoReturn:
    """Raises TrainingStopped that says what did not fit, and what to try."""
    clips, frames = batch["features"].shape[:2]
    raise TrainingStopped(
        f"out of memory on {clips} clips of {frames} frames ({' '.join(str(error).split())[:200]});"
        f" try --max-duration {0.8 * trainer.flags.max_duration:.0f}, and go on with --resume"
        " true --resume-mode reseed"
    ) from error


def stop_with_evidence(trainer: TrainerState, batches: Sequence[Batch], reason: str) -> NoReturn:
    """Saves batches and parameters for a post-mortem and raises TrainingStopped."""
    path = trainer.flags.exp_dir / f"stopped-rank{trainer.rank.rank}.pt"
    kinds = (Tensor, list, int, float, str)
    plain = [
        {name: value for name, value in batch.items() if isinstance(value, kinds)}
        for batch in batches
    ]
    parameters = trainer.model.state_dict()
    save_checkpoint(path, {"batches": plain, "model": parameters, "step": trainer.step})
    raise TrainingStopped(
        f"{reason}; batch and parameters are in {path}. Usual causes: --base-lr too high for this"
        " amount of audio per step, a broken recording, float16 (try --use-bf16 true). Continue"
        " from an older checkpoint with a lower rate."
    )
