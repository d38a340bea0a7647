"""State of the training that no state dict holds, for an exact resume.

That is the batch count of the schedules, the generator behind the host's random decisions and the
adaptive probability of every Whiten. Saved beside the weights it makes the next forward of a
resumed run the one that would have come.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from zipformer.randomness import draws, get_randomness
from zipformer.regularisers import Whiten
from zipformer.schedules import get_batch_count, set_batch_count

_VERSION = 1


def training_state(model: nn.Module) -> dict[str, Any]:
    """State of a model as numbers, strings, lists and dicts (JSON and weights_only safe); empty
    without an encoder.
    """
    return {
        "version": _VERSION,
        "batch_count": get_batch_count(model),
        "decisions": get_randomness(model).state() if draws(model) else None,
        "whiten_prob": {path: module.prob for path, module in _whitens(model).items()},
    }


def load_training_state(model: nn.Module, state: dict[str, Any]) -> None:
    """Inverse of `training_state`. Raises ValueError if the state belongs to another model or
    version.
    """
    if state.get("version") != _VERSION:
        raise ValueError(
            f"training state has version {state.get('version')!r}; this code reads {_VERSION}"
        )
    whitens = _whitens(model)
    if set(whitens) != set(state["whiten_prob"]):
        odd = sorted(set(whitens) ^ set(state["whiten_prob"]))
        raise ValueError(
            f"training state is of another model; Whiten modules on one side only: {', '.join(odd)}"
        )
    for path, module in whitens.items():
        module.prob = state["whiten_prob"][path]
    if state["decisions"] is not None:
        get_randomness(model).load_state(state["decisions"])
    if state["batch_count"] is not None:
        set_batch_count(model, state["batch_count"])


def _whitens(model: nn.Module) -> dict[str, Whiten]:
    prefix = "module."  # what a data-parallel wrapper puts before every path
    return {
        path.removeprefix(prefix): module
        for path, module in model.named_modules()
        if isinstance(module, Whiten)
    }
