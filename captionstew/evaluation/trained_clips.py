"""Evaluation clips that the model was trained on: counted, said, and refused unless asked for."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captionstew.data.manifests.index import IndexedCuts
from captionstew.data.manifests.trained_clips import TrainedClips
from captionstew.errors import UserError
from captionstew.flags import flag

Count = dict[str, Any]  # what TrainedClips.count gives


@dataclass(frozen=True)
class TrainedClipsFlags:
    """The flag of every evaluation."""

    allow_trained_clips: bool = flag(
        False,
        "evaluate although the model was trained on some of the clips; the result says how many",
    )


class TrainedOn(UserError):
    """Clips that are to be evaluated on were trained on."""


def check_trained_clips(
    cuts: IndexedCuts, memory: TrainedClips | None, allow: bool, model: Path | str
) -> Count | None:
    """Counts and says how many of the cuts `model` was trained on, by its `memory`; None where it
    has none: unknown.

    Raises:
      TrainedOn: there are some, and they are not allowed.
    """
    if memory is None:
        print(f"{cuts.path}: unknown how many of {len(cuts)} clips {model} was trained on")
        return None
    count = memory.count(cuts)
    by_audio = "unknown" if count["by_audio"] is None else count["by_audio"]
    line = (
        f"{cuts.path}: {model} was trained on {count['trained']} of {len(cuts)} clips"
        f" ({count['by_key']} by name, {by_audio} by audio)"
    )
    if not count["complete"]:
        line += ", and on other clips that are not known"
    if count["trained"] and not allow:
        raise TrainedOn(f"{line}; --allow-trained-clips true evaluates on them all the same")
    print(line)
    return count


def summed(counts: Iterable[Count | None]) -> Count | None:
    """Of several evaluations together; None if that of one is unknown."""
    counts = list(counts)
    known = [count for count in counts if count is not None]
    if not known or len(known) < len(counts):
        return None
    by_audio = [count["by_audio"] for count in known]
    return {
        **{name: sum(count[name] for count in known) for name in ("trained", "by_key", "clips")},
        "by_audio": None if None in by_audio else sum(by_audio),
        "complete": all(count["complete"] for count in known),
    }
