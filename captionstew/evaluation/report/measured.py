"""What the result files say in full: every split, system and variant, with intervals. Values as in
the files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captionstew.evaluation.report.lookup import Result, main_metric, trained_clips
from captionstew.evaluation.report.tables import MISSING, Table
from captionstew.evaluation.results import sized_system

CLIPS = ("clips", "trained on")  # head of what clips_of gives
CAPTION_METRICS = ("rouge_l", "rouge_l_random", "rouge_l_frequent", "bleu_4", "cider")


def measured_tables(results: Sequence[Result]) -> list[Table]:
    """One table per protocol that has results."""
    groups: dict[str, list[Result]] = {
        "retrieval": [],
        "captioning": [],
        "zero-shot": [],
        "probing": [],
        "other": [],
    }
    for result in results:
        groups[protocol_of(result)].append(result)
    tables = [
        retrieval_table(groups["retrieval"]),
        caption_table(groups["captioning"]),
        zero_shot_table(groups["zero-shot"]),
        *probe_tables(groups["probing"]),
        other_table(groups["other"]),
    ]
    return [table for table in tables if table.rows]


def protocol_of(result: Result) -> str:
    """Which of the tables a result file belongs to."""
    if "text_to_audio_r1" in result["metrics"]:
        return "retrieval"
    if "cider" in result["metrics"]:
        return "captioning"
    return {"zero": "zero-shot", "probe": "probing"}.get(result["task"].partition("_")[0], "other")


def retrieval_table(results: Sequence[Result]) -> Table:
    """Recalls in both directions beside the recall of permuted pairs."""
    rows = []
    for result in results:
        metrics = result["metrics"]
        rule = result["settings"].get("duplicate_captions", "")
        for way in ("text_to_audio", "audio_to_text"):
            recalls = [
                with_interval(metrics, f"{way}_{name}") for name in ("r1", "r5", "r10", "map10")
            ]
            chance = metrics.get(f"{way}_r10_chance")
            times = (
                f"{metrics[f'{way}_r10'] / max(chance, 1e-9):.1f}"
                if chance is not None
                else MISSING
            )
            about = [system_of(result), result["task"], result["split"], rule]
            numbers = [*recalls, decimal(chance), times, *clips_of(result)]
            rows.append([*about, way.replace("_", "-"), *numbers])
    head = [
        "system",
        "task",
        "split",
        "duplicate captions",
        "direction",
        "R@1",
        "R@5",
        "R@10",
        "mAP@10",
    ]
    return Table(
        "Retrieval (95 % bootstrap intervals)", [*head, "chance R@10", "x chance", *CLIPS], rows
    )


def caption_table(results: Sequence[Result]) -> Table:
    """Scores of generated captions beside ROUGE-L of captions that do not listen."""
    rows = []
    for result in results:
        scores = [with_interval(result["metrics"], name) for name in CAPTION_METRICS]
        corpus = str(result["settings"].get("corpus", ""))
        about = [system_of(result), result["task"], corpus, result["split"], variant_of(result)]
        rows.append([*about, *scores, *clips_of(result)])
    head = [
        "system",
        "task",
        "corpus",
        "split",
        "decoding",
        "ROUGE-L",
        "of a random caption",
        "of the most frequent one",
    ]
    return Table("Captioning (95 % bootstrap intervals)", [*head, "BLEU-4", "CIDEr", *CLIPS], rows)


def zero_shot_table(results: Sequence[Result]) -> Table:
    """Accuracy of the nearest class sentence."""
    rows = [
        [
            system_of(result),
            str(result["settings"].get("subset", "")),
            with_interval(result["metrics"], "accuracy"),
            decimal(result["metrics"].get("majority_class_share")),
            str(result["metrics"].get("num_classes", MISSING)),
            *clips_of(result),
        ]
        for result in results
    ]
    return Table(
        "Zero-shot classification",
        ["system", "set", "accuracy", "largest class", "classes", *CLIPS],
        rows,
    )


def probe_tables(results: Sequence[Result]) -> list[Table]:
    """A table per split and variant: a row per encoder, a column per task."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result["split"], variant_of(result)), []).append(result)
    return [probe_table(group, *key) for key, group in sorted(groups.items())]


def probe_table(results: Sequence[Result], split: str, variant: str) -> Table:
    """Deviation is over the seeds of the heads, the interval over clips."""
    cells: dict[str, dict[str, str]] = {}
    poolings: dict[str, list[str]] = {}
    for result in results:
        name = main_metric(result)
        task = result["task"].removeprefix("probe_")
        value = with_interval(result["metrics"], name, f"{name}_deviation")
        cell = f"{value} ({trained_clips(result)})"
        cells.setdefault(system_of(result), {})[task] = cell
        if pooling := result["settings"].get("pooling"):
            known = poolings.setdefault(system_of(result), [])
            known.extend([pooling] if pooling not in known else [])
    tasks = sorted(
        {task for row in cells.values() for task in row}, key=lambda task: (task == "average", task)
    )
    rows = [
        [system, ", ".join(poolings.get(system, [])), *(row.get(task, MISSING) for task in tasks)]
        for system, row in sorted(cells.items())
    ]
    where = ", ".join(filter(None, [split, variant]))
    note = (
        "Mean ± deviation over seeds, 95 % bootstrap interval over clips; in parentheses how many"
        " of the clips the encoder was trained on, ? where that is unknown."
    )
    return Table(f"Probes on frozen encoders: {where}", ["encoder", "pooling", *tasks], rows, note)


def other_table(results: Sequence[Result]) -> Table:
    """Everything else, metrics as they are named in the files."""
    rows = []
    for result in results:
        metrics = result["metrics"]
        named = [
            name
            for name in metrics
            if isinstance(metrics[name], (int, float)) and not name.endswith("_deviation")
        ]
        shown = ", ".join(f"{name} {with_interval(metrics, name)}" for name in named)
        rows.append([system_of(result), result["task"], result["split"], variant_of(result), shown,
                     *clips_of(result)])  # fmt: skip
    return Table(
        "Other evaluations", ["system", "task", "split", "variant", "metrics", *CLIPS], rows
    )


def file_table(results: Sequence[Result], exp_dir: Path) -> Table:
    """Every result file, and how it was made."""
    rows = []
    for result in results:
        encoder = result["encoder"]
        about = [str(encoder.get("preset", "")), str(encoder.get("pretraining", ""))]
        about += [f"{result.get(f'{kind}_parameters', 0):,}" for kind in ("trained", "frozen")]
        about += [str(result.get(name, "")) for name in ("created", "git_sha", "command")]
        about.insert(0, trained_clips(result))
        rows.append([str(Path(result["path"]).relative_to(exp_dir)), result["system"], *about])
    head = [
        "file",
        "system",
        "clips trained on",
        "encoder",
        "pretraining",
        "trained parameters",
        "frozen",
        "created",
        "git",
        "command",
    ]
    return Table("Result files", head, rows)


def clips_of(result: Result) -> list[str]:
    """How many clips, and how many of them the model was trained on."""
    return [str(result["num_clips"]), trained_clips(result)]


def system_of(result: Result) -> str:
    return sized_system(result["system"], result["settings"].get("data_size"))


def variant_of(result: Result) -> str:
    """What a result file's name says after task and split."""
    return (
        Path(result["path"])
        .stem.removeprefix(f"{result['task']}-{result['split']}")
        .removeprefix("-")
    )


def with_interval(metrics: dict[str, Any], name: str, deviation: str = "") -> str:
    """`0.750 ± 0.010 [0.700, 0.800]`, without what the file does not hold."""
    value = metrics.get(name)
    if value is None:
        return MISSING
    text = str(value) if isinstance(value, int) else f"{value:.3f}"
    if metrics.get(deviation) is not None:
        text += f" ± {metrics[deviation]:.3f}"
    if bounds := metrics.get(f"{name}_interval"):
        text += f" [{bounds[0]:.3f}, {bounds[1]:.3f}]"
    return text


def decimal(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"
