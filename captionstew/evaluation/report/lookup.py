"""Which result file fills a cell of a table, and how its number is written."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from captionstew.evaluation.report.tables import MISSING
from captionstew.paper import paper

Result = dict[str, Any]

# metric of a table -> key in the result file, factor, digits: as the paper writes them
FORMATS = {
    "map": ("map", 1, 3),
    "psds1": ("psds1", 1, 3),
    "accuracy": ("accuracy", 100, 2),
    "qa_accuracy": ("accuracy", 100, 1),
    "judge_score": ("judge_score", 1, 2),
    "rouge_l": ("rouge_l", 100, 1),
    "text_to_audio_r1": ("text_to_audio_r1", 100, 1),
}
NAMES = {
    "map": "mAP",
    "psds1": "PSDS1",
    "accuracy": "accuracy",
    "qa_accuracy": "accuracy",
    "judge_score": "score",
    "rouge_l": "ROUGE-L",
    "text_to_audio_r1": "R@1",
}
SIZES = {"k": 1e3, "m": 1e6, "": 1.0}


def candidates(
    results: Iterable[Result], task: str, pooling: Sequence[str] = (), scratch: bool = False
) -> list[Result]:
    """Result files of a task on its test clips.

    Args:
      pooling: of a probe; empty for any.
      scratch: encoders trained on the task itself (Table 7) instead of frozen ones.
    """
    return [
        result
        for result in results
        if result["task"] == task
        and result["split"] not in ("train", "valid")
        and (not pooling or result["settings"].get("pooling", pooling[0]) in pooling)
        and bool(result["settings"].get("train_encoder", False)) == scratch
    ]


def choose(results: Iterable[Result]) -> Result | None:
    """Of several files for one cell: the `test` split, the largest pretraining data, strict
    retrieval, the newest.
    """
    return max(results, key=_preference, default=None)


def _preference(result: Result) -> tuple:
    settings = result["settings"]
    strict = settings.get("duplicate_captions", "strict") == "strict"
    return result["split"] == "test", data_size(result), strict, result.get("created", "")


def data_size(result: Result) -> float:
    """Captions that the encoder was pretrained on; infinite for all, and where the file does not
    say.
    """
    return size_of(str(result["settings"].get("data_size") or "all"))


def size_of(text: str) -> float:
    """`400k` -> 400000.0, `all` -> inf."""
    if text.lower() == "all":
        return float("inf")
    if not (parts := re.fullmatch(r"([\d.]+)([km]?)", text.strip().lower())):
        raise ValueError(f"data size {text!r} is neither `all` nor a number such as 400k or 4M")
    return float(parts[1]) * SIZES[parts[2]]


def value_of(result: Result, metric: str) -> float | None:
    """The number in the paper's unit."""
    key, factor, _ = FORMATS[metric]
    value = result["metrics"].get(key)
    return None if value is None else factor * value


def written(result: Result | None, metric: str) -> str:
    """`56.46 ± 0.12` (over seeds, where there are several) and remarks, or `missing`."""
    if result is None or (value := value_of(result, metric)) is None:
        return MISSING
    key, factor, digits = FORMATS[metric]
    deviation = result["metrics"].get(f"{key}_deviation")
    over_seeds = f" ± {factor * deviation:.{digits}f}" if deviation is not None else ""
    return f"{value:.{digits}f}{over_seeds}{remarks(result)}"


def remarks(result: Result) -> str:
    """` (n = 300; 2 trained)`: the number of clips, if the paper's test set has another: such
    numbers must not be compared; whose split, where there are several; who judged with which
    prompt; and of how many clips the model was trained on.
    """
    settings = result["settings"]
    parts = _other_size(result)
    if "clip_split" in settings:
        parts.append(f"{settings['clip_split']} split")
    if "judge" in settings:
        parts.append(f"judged by {settings['judge']}, prompt {settings['judge_prompt']}")
    return f" ({'; '.join([*parts, f'{trained_clips(result)} trained'])})"


def trained_clips(result: Result) -> str:
    """How many of the clips the model was trained on: `2`, `≥ 2` if not all of its training clips
    are known, `?` if none are.
    """
    count = result.get("trained_clips")
    if count is None:
        return "?"
    return f"{'' if count['complete'] else '≥ '}{count['trained']}"


def _other_size(result: Result) -> list[str]:
    task = (
        result["task"]
        .replace("lit_captioning_", "lit_retrieval_")
        .replace("own_retrieval_", "lit_retrieval_")
    )
    printed = next(
        (
            row["test"]
            for row in paper()["table_8"]["rows"]
            if row["task"] == task and "questions" not in row
        ),
        "",
    )
    return [] if printed == f"{result['num_clips']:,}" else [f"n = {result['num_clips']:,}"]


def main_metric(result: Result) -> str:
    """The metric that a probe is judged by.

    Raises:
      ValueError: the file does not say.
    """
    metric = result["settings"].get("metric")
    if metric not in result["metrics"]:
        raise ValueError(
            f"{result['path']}: settings.metric {metric!r} is none of its metrics; decode again"
        )
    return metric
