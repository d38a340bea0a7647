"""Writing a run's checkpoint, and going on from one.

An exact resume gives the losses of a run that was never interrupted. So everything that decides
what a step computes must be as it was: the number of processes, the sampler's settings, the model's
configuration with its tokenizer, and all flags but the free ones (flags.free_flag). `--resume-mode
reseed` accepts other flags, batches and processes, never another model; it begins the epoch again,
with new random numbers.
"""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captionstew import checkpoint as checkpoints
from captionstew.checkpoint import CheckpointError
from captionstew.data.manifests.trained_clips import ENTRY
from captionstew.distributed import Rank, barrier, gather_objects
from captionstew.flags import flags_to_dict
from captionstew.training.flags import TrainingFlags
from captionstew.training.log import cut_logs, log_sizes
from captionstew.training.state import TrainerState, Window
from zipformer import ScaledAdam, load_training_state, training_state

SET_ASIDE = "set-aside"  # folder of what an abandoned continuation left
NOT_THE_MODEL = ("coverage", ENTRY)  # entries of a task's config that say where data came from


def save(trainer: TrainerState, name: str) -> None:
    """Rank 0 writes <exp-dir>/<name> with every rank's random state."""
    ranks = gather_objects(
        {
            "encoder": training_state(trainer.model),
            "random": checkpoints.random_state(),
            "window": trainer.window.state_dict(),
        }
    )
    if trainer.rank.is_main:
        content = {
            "model": trainer.model.state_dict(),
            "model_avg": trainer.average,
            "config": trainer.task.config,
            "flags": flags_to_dict(trainer.flags),
            "sampler": vars(trainer.data.sampler.settings).copy(),
            "step": trainer.step,
            "epoch": trainer.epoch,
            "position": trainer.position,
            "nonfinite": trainer.nonfinite,
            "validated": trainer.validated,
            "logs": log_sizes(trainer.flags.exp_dir),
            "average_period": trainer.flags.average_period,
            "optimizer": trainer.optimizer.state_dict(),
            "scheduler": trainer.scheduler.state_dict(),
            "grad_scaler": trainer.scaler.state_dict(),
            "ranks": ranks,
            "provenance": checkpoints.provenance(),
        }
        checkpoints.save_checkpoint(trainer.flags.exp_dir / name, content)
    barrier()


def restore(trainer: TrainerState) -> None:
    """Puts the training where the checkpoint that the flags ask for left it, if they ask for one,
    and says so.

    Raises:
      CheckpointError: there is no such checkpoint, or it cannot be continued under these flags.
    """
    flags, rank = trainer.flags, trainer.rank
    found = _checkpoint_to_continue(flags)
    _clear_the_way(found[1]["step"] if found else 0, flags, rank)
    if found is None:
        _cut_logs({}, flags, rank)
        logging.info(
            "starting from step 0 with %d parameters",
            sum(p.numel() for p in trainer.model.parameters()),
        )
        return
    path, content = found
    _check_same(trainer, path, content)
    if "logs" in content:
        _cut_logs(content["logs"], flags, rank)
    checkpoints.load_weights(trainer.model, content["model"], path)
    for name, value in content["model_avg"].items():
        trainer.average[name].copy_(value)
    _restore_optimizer(trainer.optimizer, content["optimizer"])
    trainer.scheduler.load_state_dict(content["scheduler"])
    trainer.scaler.load_state_dict(content["grad_scaler"])
    trainer.step, trainer.epoch = content["step"], content["epoch"]
    trainer.position, trainer.nonfinite = content["position"], content["nonfinite"]
    trainer.validated = content.get("validated", trainer.step)
    trainer.task.config[ENTRY] = content["config"].get(ENTRY)
    if flags.resume_mode == "reseed" and trainer.position is not None:
        logging.warning(
            "--resume-mode reseed: epoch %d starts again, after %d of its batches; random numbers"
            " are new", trainer.epoch, trainer.position["consumed"],
        )  # fmt: skip
        trainer.position = None
    ranks = content["ranks"]
    load_training_state(trainer.model, ranks[rank.rank % len(ranks)]["encoder"])
    if len(ranks) == rank.world_size and flags.resume_mode == "exact":
        checkpoints.set_random_state(ranks[rank.rank]["random"])
        if "window" in ranks[rank.rank]:
            trainer.window = Window.from_dict(ranks[rank.rank]["window"])
    else:
        checkpoints.seed_generators(flags.seed + trainer.step + rank.rank)
        trainer.update_schedules()
    place = f"after batch {trainer.position['consumed']}" if trainer.position else "at its start"
    logging.info("restored %s: step %d, epoch %d %s", path, trainer.step, trainer.epoch, place)


def _checkpoint_to_continue(flags: TrainingFlags) -> tuple[Path, dict[str, Any]] | None:
    if flags.resume:
        return checkpoints.newest_checkpoint(flags.exp_dir, checkpoints.RUN_ENTRIES)
    if flags.start_batch > 0:
        path = flags.exp_dir / f"checkpoint-{flags.start_batch}.pt"
    elif flags.start_epoch > 1:
        path = flags.exp_dir / f"epoch-{flags.start_epoch - 1}.pt"
    else:
        return None
    return path, checkpoints.load_checkpoint(path, checkpoints.RUN_ENTRIES)


def _clear_the_way(step: int, flags: TrainingFlags, rank: Rank) -> None:
    """Sees to it that the folder's newest checkpoint is the one that the run starts from: a later
    --resume, and --keep-last-k, would take those of an earlier run for its own. With --start-batch
    or --start-epoch they are moved to <exp-dir>/set-aside.

    Raises:
      CheckpointError: there are some, and none was asked for; or the processes would start from
          different steps.
    """
    steps = gather_objects(step)
    if len(set(steps)) > 1:
        raise CheckpointError(
            f"{flags.exp_dir}: the processes start from different steps"
            f" ({', '.join(map(str, steps))}): some cannot read the newest checkpoint; the warnings"
            " above name it"
        )
    if flags.resume:  # from the newest; those that cannot be read have been named
        return
    later = [path for found, path in checkpoints.all_checkpoints(flags.exp_dir) if found > step]
    if later and step == 0:
        raise CheckpointError(
            f"{flags.exp_dir}: holds {later[0].name} of an earlier run. --resume true goes on from"
            " it; to train anew remove the checkpoints, or take another --exp-dir"
        )
    barrier()
    if rank.is_main:
        for path in later:
            aside = flags.exp_dir / SET_ASIDE / path.name
            aside.parent.mkdir(exist_ok=True)
            path.replace(aside)
            logging.warning("%s lies beyond step %d: moved to %s", path, step, aside)
    barrier()


def _cut_logs(sizes: dict[str, int], flags: TrainingFlags, rank: Rank) -> None:
    """Takes the logs back to the step that the run starts from: it writes the rest again."""
    if rank.is_main:
        cut_logs(flags.exp_dir, sizes, None if flags.resume else flags.exp_dir / SET_ASIDE)
    barrier()


def _check_same(trainer: TrainerState, path: Path, content: dict[str, Any]) -> None:
    """Raises CheckpointError that lists what has changed and must not."""
    flags, world_size = trainer.flags, trainer.rank.world_size
    theirs = {name: value for name, value in content["config"].items() if name not in NOT_THE_MODEL}
    ours = {name: value for name, value in trainer.task.config.items() if name not in NOT_THE_MODEL}
    if changed := _differences(theirs, ours):
        raise CheckpointError(
            f"{path}: holds another model than the flags and the data describe: {changed}. Restore"
            " the old ones, or train anew in another --exp-dir"
        )
    if flags.resume_mode != "exact":
        return
    if len(content["ranks"]) != world_size:
        raise CheckpointError(
            f"{path}: was written by {len(content['ranks'])} processes, this run has"
            f" {world_size}: use the same number, or --resume-mode reseed to begin the epoch"
            " again with other random numbers"
        )
    fixed = {item.name for item in dataclasses.fields(flags) if not item.metadata["may_change"]}
    theirs = {name: value for name, value in content["flags"].items() if name in fixed}
    ours = {name: value for name, value in flags_to_dict(flags).items() if name in theirs}
    changed = _differences(theirs, ours) or _differences(
        content["sampler"], vars(trainer.data.sampler.settings)
    )
    if changed:
        raise CheckpointError(
            f"{path}: cannot be continued exactly, these have changed: {changed}. Restore the old"
            " values, or --resume-mode reseed to begin the epoch again with the new ones"
        )


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """`name old -> new` of the entries that differ, or that their content does; empty if none
    does.
    """
    names = sorted(
        name for name in theirs.keys() | ours.keys() if not _equal(theirs.get(name), ours.get(name))
    )
    shown = []
    for name in names:
        old, new = _shortly(theirs.get(name)), _shortly(ours.get(name))
        shown.append(f"{name} {old} -> {new}" if old != new else f"the content of {name}")
    return "; ".join(shown)


def _equal(one: Any, other: Any) -> bool:
    """Equality of nested plain values and tensors; a list equals a tuple."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            _equal(value, other[key]) for key, value in one.items()
        )
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


def _shortly(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else "(of other content)"


def _restore_optimizer(optimizer: ScaledAdam, state: dict[str, Any]) -> None:
    """Loads the optimiser's state, but keeps rates and clipping of this command line: a run may go
    on with others.
    """
    asked = [
        {name: group[name] for name in ("base_lr", "clipping_scale")}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    for group, options in zip(optimizer.param_groups, asked):
        for name, value in options.items():
            if group[name] != value:
                logging.info("%s changes from %s to %s", name, group[name], value)
                group[name] = value
