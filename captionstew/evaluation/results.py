"""Result files: the only thing the report is built from."""

import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from captionstew.checkpoint import git_sha
from captionstew.errors import printable
from captionstew.files import parse_json, write_text
from captionstew.hashing import hash_of

NEEDED = (
    "task",
    "split",
    "system",
    "encoder",
    "metrics",
    "num_clips",
    "settings",
)  # by every reader
TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("task", "split", "system"), str),
    **dict.fromkeys(("encoder", "metrics", "settings"), dict),
    **dict.fromkeys(("num_clips", "num_captions"), int),
    "trained_clips": (dict, type(None)),
}


def write_result(
    exp_dir: Path,
    *,
    task: str,
    split: str,
    system: str,
    encoder: dict[str, Any],
    metrics: dict[str, Any],
    num_clips: int,
    settings: dict[str, Any],
    trained_clips: dict[str, Any] | None = None,
    num_captions: int = 0,
    trained_parameters: int = 0,
    frozen_parameters: int = 0,
    checkpoint: str = "",
    variant: str = "",
) -> Path:
    """Writes <exp_dir>/results/<task>-<split>[-<variant>].json and says so on stdout.

    Args:
      encoder: path, sha256, preset, pretraining of the audio encoder, and `data_size` where that is
          known.
      settings: pooling, seeds, rates, windows, ...; its hash is `config_hash`. The encoder's
          `data_size` joins them.
      trained_clips: what check_trained_clips found; None means that it is unknown.
    """
    if "data_size" in encoder:
        settings = settings | {"data_size": encoder["data_size"]}
    content = {
        "task": task,
        "split": split,
        "system": system,
        "encoder": encoder,
        "metrics": metrics,
        "num_clips": num_clips,
        "num_captions": num_captions,
        "trained_clips": trained_clips,
        "settings": settings,
        "trained_parameters": trained_parameters,
        "frozen_parameters": frozen_parameters,
        "checkpoint": checkpoint,
        "config_hash": hash_of(settings),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git_sha": git_sha(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = result_path(exp_dir, task, split, variant)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    print(f"wrote {path}: " + ", ".join(f"{key} {_short(value)}" for key, value in metrics.items()))
    return path


def result_path(exp_dir: Path, task: str, split: str, variant: str = "") -> Path:
    """Where write_result writes. What belongs to a result is written before it: its file says that
    all is there.
    """
    name = "-".join(part for part in (task, split, variant) if part)
    return exp_dir / "results" / f"{name}.json"


def sized_system(system: str, data_size: str | None) -> str:
    """The system, with what its encoder was pretrained on where that is a subset."""
    return system if data_size in (None, "", "all") else f"{system} ({data_size})"


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All result files below a folder, by path. One with a value that no evaluation writes is left
    out, and said so on stderr.

    Raises:
      ValueError: a file is not a result file.
    """
    results = []
    for path in sorted(folder.rglob("results/*.json")):
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
            if missing := [name for name in NEEDED if name not in content]:
                raise ValueError(f"without {', '.join(missing)}")
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path}: not a result file ({error}); remove it or run its evaluation again"
            ) from error
        if odd := _odd_value(content):
            print(f"{printable(str(path))}: {odd}; left out, see to it", file=sys.stderr)
            continue
        results.append({**content, "path": str(path)})
    return results


def _odd_value(content: dict[str, Any]) -> str:
    """The first entry that is of another type than write_result gives it; empty if none is."""
    for name, kind in TYPES.items():
        if name in content and not isinstance(content[name], kind):
            return f"{name} is {_shown(content[name])}"
    for name, value in content["metrics"].items():
        if not _is_metric(value):
            return f"metric {printable(name)} is {_shown(value)}"
    return ""


def _is_metric(value: Any) -> bool:
    """A finite number, none, or a list or dictionary of such."""
    if isinstance(value, (list, dict)):
        inner = value.values() if isinstance(value, dict) else value
        return all(not isinstance(one, (list, dict)) and _is_metric(one) for one in inner)
    return value is None or (isinstance(value, (int, float)) and math.isfinite(value))


def _shown(value: Any) -> str:
    return printable(repr(value)[:60])


def _short(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
