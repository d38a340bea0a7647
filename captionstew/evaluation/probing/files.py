"""Where the probes of an experiment folder lie, and which of them the last training left."""

import json
from collections.abc import Sequence
from pathlib import Path

from captionstew.checkpoint import CheckpointError
from captionstew.files import atomic_write

RECORD = "probes.json"


def probe_name(task: str, pooling: str) -> str:
    """File of a task's probe: attention pooling has its own beside that of the mean."""
    return f"probe-{task}-attention.pt" if pooling == "attention" else f"probe-{task}.pt"


def record_probes(exp_dir: Path, names: Sequence[str]) -> None:
    """Notes the probes of the running training: others in the folder are left from an earlier
    one.
    """
    with atomic_write(exp_dir / RECORD, "w", encoding="utf-8") as file:
        json.dump({"probes": list(names)}, file)


def find_probes(exp_dir: Path, tasks: str) -> list[Path]:
    """The probes of the last training, or all of these comma-separated tasks.

    Raises:
      CheckpointError: there are none.
    """
    if tasks:
        found = []
        for task in tasks.split(","):
            paths = [
                exp_dir / probe_name(task.strip(), pooling) for pooling in ("mean", "attention")
            ]
            there = [path for path in paths if path.is_file()]
            if not there:
                raise CheckpointError(f"{exp_dir}: no probe of {task.strip()!r}; train it first")
            found += there
        return found
    record = exp_dir / RECORD
    if not record.is_file():
        raise CheckpointError(f"{exp_dir}: no {RECORD}; run train.py first, or name --tasks")
    return [exp_dir / name for name in json.loads(record.read_text(encoding="utf-8"))["probes"]]
