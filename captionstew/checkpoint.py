"""One checkpoint format for every model of this repository.

A checkpoint is a `torch.save`d dict of tensors, numbers and strings, so it loads with weights-only
safety:

    format, version      "captionstew", 1
    model                state dict of the whole model; the audio encoder is under "encoder.", in
                         a tagger at the top
    model_avg            running average of `model` in float64 (absent from averaged checkpoints)
    config               {"encoder": ..., "fbank": ..., "task": ..., "coverage": ...,
                         "trained_clips": ...}: all that evaluation needs; the last names a file
                         that lies beside the checkpoint
    flags                the command line of the training run
    step, epoch, position    steps done, epoch (from 1) and place in its batches
    optimizer, scheduler, grad_scaler, average_period
    ranks                per process: random generators, the encoder's training state, and what has
                         happened since the last progress line
    logs                 sizes of the run's logs at this moment
    provenance           git sha, package versions
"""

import logging
import os
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captionstew.errors import UserError
from zipformer.safe_load import nonfinite_names, safe_load

FORMAT = "captionstew"
VERSION = 1
# of a run that was asked to stop; --iter, --avg and --keep-last-k do not count it
INTERRUPTED = "interrupted.pt"
StateDict = dict[str, Tensor]
MODEL_ENTRIES = ("model", "config")  # what a model is made of
AVERAGED_ENTRIES = ("model", "model_avg", "step", "average_period")
RUN_ENTRIES = (  # what a training goes on from
    *MODEL_ENTRIES, "model_avg", "flags", "sampler", "step", "epoch", "position", "nonfinite",
    "average_period", "optimizer", "scheduler", "grad_scaler", "ranks",
)  # fmt: skip
ENTRY_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("model", "model_avg", "config", "flags", "sampler", "optimizer"), dict),
    **dict.fromkeys(("scheduler", "grad_scaler", "provenance", "logs"), dict),
    **dict.fromkeys(("step", "epoch", "nonfinite", "validated", "average_period"), int),
    "position": (dict, type(None)),
    "ranks": list,
}


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message names the file and what to do."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Writes atomically: a kill or a full disk leaves either the old file or none, never half a
    file.

    Raises:
      OSError: the disk refused; nothing is left behind under `path` or its temporary name.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with open(temporary, "wb") as file:
            torch.save({"format": FORMAT, "version": VERSION, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # torch's writer hides a full disk behind an error about positions
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError):
            reason = f"cannot be written ({cause.strerror}); older checkpoints are whole"
            raise OSError(cause.errno, reason, str(path)) from None
        raise


def load_checkpoint(path: Path | str, needed: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a checkpoint to CPU memory with weights-only safety.

    Args:
      needed: entries that the caller uses; MODEL_ENTRIES for a model.

    Raises:
      CheckpointError: missing, damaged, unsafe, of another format or of a newer version, without a
          needed entry, or with weights that hold NaN.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; name a .pt file that training wrote")
    try:
        content = safe_load(path)
    except ValueError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); use an older one") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not a CaptionStew checkpoint; for other formats see zipformer.load_pretrained"
        )
    refuse_newer(content, path)
    require_entries(content, path, needed)
    _refuse_bad_weights(content, path)
    return content


def require_entries(content: dict[str, Any], path: Path, needed: Sequence[str]) -> None:
    """Raises CheckpointError for a file of ours without what is needed, or with another type of
    it.
    """
    if missing := [name for name in needed if name not in content]:
        raise CheckpointError(
            f"{path}: holds no {', no '.join(missing)}, so it is of another kind than what is"
            f" needed here; it holds {', '.join(map(str, content))}"
        )
    for name, kind in ENTRY_TYPES.items():
        if name in content and not isinstance(content[name], kind):
            raise CheckpointError(
                f"{path}: its entry {name} is a {type(content[name]).__name__}, so training did"
                " not write it"
            )


def _refuse_bad_weights(content: dict[str, Any], path: Path) -> None:
    for name in ("model", "model_avg"):
        weights = content.get(name, {})
        if not all(isinstance(value, Tensor) for value in weights.values()):
            raise CheckpointError(f"{path}: its entry {name} holds more than tensors")
        if bad := nonfinite_names(weights):
            raise CheckpointError(
                f"{path}: its weights hold NaN or infinity ({_listed(bad, 3)}); use an older one"
            )


def refuse_newer(content: dict[str, Any], path: Path) -> None:
    """Raises CheckpointError for a checkpoint of ours that later code wrote."""
    version = content.get("version")
    if not isinstance(version, int):
        raise CheckpointError(f"{path}: says no format version; training did not write it")
    if version > VERSION:
        raise CheckpointError(
            f"{path}: format version {version} is newer than this code ({VERSION})"
        )


def step_checkpoints(exp_dir: Path) -> list[Path]:
    """checkpoint-<step>.pt files, newest first."""
    return _numbered(exp_dir, "checkpoint")


def all_checkpoints(exp_dir: Path) -> list[tuple[int, Path]]:
    """(step, path) of every checkpoint that a run can go on from, newest first; unreadable ones
    come first of all.
    """
    paths = epoch_checkpoints(exp_dir) + step_checkpoints(exp_dir) + list(exp_dir.glob(INTERRUPTED))
    return sorted(((_step_of(path), path) for path in paths), reverse=True)


def epoch_checkpoints(exp_dir: Path) -> list[Path]:
    """epoch-<number>.pt files, newest first."""
    return _numbered(exp_dir, "epoch")


def _numbered(exp_dir: Path, stem: str) -> list[Path]:
    pattern = re.compile(rf"{stem}-(\d+)\.pt")
    found = [
        (int(match[1]), path)
        for path in exp_dir.glob(f"{stem}-*.pt")
        if (match := pattern.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found, reverse=True)]


def newest_checkpoint(
    exp_dir: Path, needed: Sequence[str] = ()
) -> tuple[Path, dict[str, Any]] | None:
    """The readable checkpoint with most steps and the needed entries, or None in a folder without
    any.

    Unreadable files are passed over with a warning; what a killed write left is removed.

    Raises:
      CheckpointError: there are checkpoints, but none can be read.
    """
    for path in exp_dir.glob(".*.pt.partial"):
        logging.warning("%s: a write that was cut off, removed", path)
        path.unlink(missing_ok=True)
    paths = all_checkpoints(exp_dir)
    for _, path in paths:
        try:
            return path, load_checkpoint(path, needed)
        except CheckpointError as error:
            logging.warning("falling back to an older checkpoint: %s", error)
    if paths:
        raise CheckpointError(
            f"{exp_dir}: none of its {len(paths)} checkpoints can be read; remove them to start"
            " anew"
        )
    return None


def _step_of(path: Path) -> int:
    """Step of a checkpoint without reading its tensors; unreadable files come first, so that they
    get reported.
    """
    try:
        step = safe_load(path, tensors_on_disk=True)["step"]
    except (ValueError, OSError, TypeError, KeyError) as error:
        logging.debug("%s: %s", path, error)
        return sys.maxsize
    return step if isinstance(step, int) else sys.maxsize


def remove_old_checkpoints(exp_dir: Path, keep: int) -> None:
    """Deletes all but the newest `keep` step checkpoints."""
    for path in step_checkpoints(exp_dir)[keep:]:
        path.unlink()


@torch.no_grad()
def update_running_average(average: StateDict, model: nn.Module, step: int, period: int) -> None:
    """Moves `average` (float64, in place) to the mean over all periods so far (icefall's
    model_avg).

    average := model * period/step + average * (1 - period/step), at every step divisible by
    `period`.
    """
    weight = period / step
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].mul_(1 - weight).add_(value.to(average[name]), alpha=weight)
        else:
            average[name].copy_(value)


def average_checkpoints(paths: Sequence[Path]) -> StateDict:
    """Mean of the `model` entries, computed in float64; integer entries come from the first
    file.
    """
    if not paths:
        raise CheckpointError("nothing to average")
    reference = load_checkpoint(paths[0], ["model"])["model"]
    total = _as_float64(reference)
    for path in paths[1:]:
        state = load_checkpoint(path, ["model"])["model"]
        _require_same_shapes(state, path, reference, paths[0])
        for name, value in state.items():
            if value.is_floating_point():
                total[name] += value.double()
    return {
        name: (value / len(paths)).to(reference[name].dtype) if value.is_floating_point() else value
        for name, value in total.items()
    }


def average_between(start: Path | None, end: Path) -> StateDict:
    """Mean of the parameters over the steps after `start` up to `end`, from the two running
    averages.

    With m the running average of a checkpoint and n the last step that it took in (a multiple of
    the period): (n_end m_end - n_start m_start) / (n_end - n_start), as icefall's
    --use-averaged-model, which takes the steps of the checkpoints for n: the same where they are
    such multiples, else an extrapolation. Without a start this is m_end.

    Raises:
      CheckpointError: wrong order, or no running average was taken between the two.
    """
    last = load_checkpoint(end, AVERAGED_ENTRIES)
    if _averaged_steps(last) == 0:
        raise CheckpointError(
            f"{end}: step {last['step']} is before the first running average (--average-period "
            f"{last['average_period']}); use --use-averaged-model false"
        )
    if start is None:
        return _like(last["model_avg"], last["model"])
    first = load_checkpoint(start, AVERAGED_ENTRIES)
    _require_same_shapes(first["model_avg"], start, last["model_avg"], end)
    if first["step"] >= last["step"]:
        raise CheckpointError(
            f"{start} (step {first['step']}) is not older than {end} (step {last['step']})"
        )
    steps = _averaged_steps(last) - _averaged_steps(first)
    if steps == 0:
        raise CheckpointError(
            f"{end}: no running average was taken between steps {first['step']} and {last['step']}"
            f" (--average-period {last['average_period']}); use a larger --avg, or"
            " --use-averaged-model false"
        )
    weight = _averaged_steps(last) / steps
    mean = {
        name: (
            value * weight + first["model_avg"][name] * (1 - weight)
            if value.is_floating_point()
            else value
        )
        for name, value in last["model_avg"].items()
    }
    return _like(mean, last["model"])


def _require_same_shapes(one: StateDict, path: Path, other: StateDict, of: Path) -> None:
    if {k: v.shape for k, v in one.items()} != {k: v.shape for k, v in other.items()}:
        raise CheckpointError(f"{path}: holds another model than {of}, so they have no average")


def _averaged_steps(content: dict[str, Any]) -> int:
    """The last step that a checkpoint's running average took in; 0 where there was none."""
    return content["step"] - content["step"] % content["average_period"]


def select_model(
    exp_dir: Path, epoch: int, iteration: int, avg: int, use_averaged_model: bool
) -> tuple[StateDict, Path]:
    """Weights named by icefall's --epoch/--iter/--avg/--use-averaged-model, and the newest file
    they come from.

    Raises:
      CheckpointError: a file that the choice needs is not there.
    """
    asked = f"--iter {iteration}" if iteration > 0 else f"--epoch {epoch}"
    if avg < 1 or (iteration == 0 and avg > epoch):
        raise CheckpointError(
            f"{exp_dir}: {asked} --avg {avg}: --avg must be at least 1 and at most the epoch"
        )
    if iteration > 0:
        # Averaging over intervals needs the checkpoint before the first of them.
        needed = avg + 1 if use_averaged_model else avg
        there = step_checkpoints(exp_dir)
        files = [path for path in there if _number(path) <= iteration][:needed]
        if not files or _number(files[0]) != iteration:
            raise CheckpointError(
                f"{exp_dir}: there is no checkpoint-{iteration}.pt; there are {_names(there)}"
            )
    else:
        # A running average covers the epochs in between, so its two ends are enough; epoch 0 has no
        # file.
        numbers = (epoch, epoch - avg) if use_averaged_model else range(epoch, epoch - avg, -1)
        wanted = [exp_dir / f"epoch-{number}.pt" for number in numbers if number > 0]
        needed, files = len(wanted), [path for path in wanted if path.is_file()]
        there = epoch_checkpoints(exp_dir)
    if len(files) < needed:
        raise CheckpointError(
            f"{exp_dir}: {asked} --avg {avg} needs {needed} checkpoints, there are {_names(there)}"
        )
    if use_averaged_model:
        return average_between(files[-1] if len(files) > 1 else None, files[0]), files[0]
    return average_checkpoints(files), files[0]


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths) or "none"


def _number(path: Path) -> int:
    return int(path.stem.split("-")[1])


def _as_float64(state: StateDict) -> StateDict:
    return {
        name: value.double() if value.is_floating_point() else value
        for name, value in state.items()
    }


def _like(state: StateDict, reference: StateDict) -> StateDict:
    return {name: value.to(reference[name].dtype) for name, value in state.items()}


def seed_generators(seed: int) -> None:
    """Seeds the global generators of Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """States of the global generators, as plain values."""
    version, words, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    return {
        "python": [version, list(words), gauss],
        "numpy": [
            numpy_state["bit_generator"],
            numpy_state["state"]["key"].tolist(),
            numpy_state["state"]["pos"],
            numpy_state["has_gauss"],
            numpy_state["gauss"],
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restores what random_state() returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def provenance() -> dict[str, str]:
    """Versions of the code and of the libraries that decide numbers."""
    return {
        "git_sha": git_sha(),
        "torch": str(torch.__version__),
        "lhotse": version("lhotse"),
        "transformers": version("transformers"),
        "numpy": np.__version__,
    }


def git_sha() -> str:
    """Commit of the checkout, with "-dirty" if files differ from it; "unknown" outside a git
    checkout.
    """
    folder = Path(__file__).parent
    try:
        command = [
            "git",
            "-C",
            str(folder),
            "describe",
            "--always",
            "--dirty",
            "--abbrev=12",
            "--exclude=*",
        ]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def load_weights(model: nn.Module, state: StateDict, source: Path | str) -> None:
    """Strict load_state_dict whose CheckpointError lists what is missing, unexpected or of another
    shape.
    """
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError(
            f"{source}: does not fit the model; {' '.join(str(error).split())}"
        ) from error
    if missing or unexpected:
        raise CheckpointError(
            f"{source}: does not fit the model; missing: {_listed(missing)}; unexpected:"
            f" {_listed(unexpected)}"
        )


def _listed(names: Sequence[str], limit: int = 8) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
