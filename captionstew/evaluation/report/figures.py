"""Pictures of the report: curves of training, scaling with data (Figure 2), probes side by side."""

from collections.abc import Sequence
from pathlib import Path

from captionstew.evaluation.report.lookup import (
    FORMATS,
    NAMES,
    Result,
    candidates,
    choose,
    main_metric,
    size_of,
    value_of,
)
from captionstew.evaluation.report.paper_tables import MEAN_POOLING
from captionstew.files import atomic_write
from captionstew.paper import paper
from captionstew.training.log import read_scalars

VALIDATION_CURVES = ("text_to_audio_r10", "audio_to_text_r10", "rouge_l", "map", "accuracy")
# Objective by colour, start by line.
STYLES = {
    "contrastive-scratch": ("tab:blue", "-"),
    "contrastive-init": ("tab:blue", "--"),
    "captioning-scratch": ("tab:orange", "-"),
    "captioning-init": ("tab:orange", "--"),
}
WHOLE = "all"  # the data size behind the numbers of the paper's tables


def draw_curves(runs: Sequence[Path], exp_dir: Path, path: Path) -> None:
    """Training loss and validation metrics by step, of every training run."""
    pyplot = _pyplot()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for run in runs:
        records = read_scalars(run)
        name = _label(str(run.relative_to(exp_dir)))
        train = [record for record in records if record["kind"] == "train" and "loss" in record]
        left.plot(
            [record["step"] for record in train], [record["loss"] for record in train], label=name
        )
        valid = [record for record in records if record["kind"] == "valid"]
        for key in VALIDATION_CURVES:
            points = [(record["step"], record[key]) for record in valid if key in record]
            if points:
                right.plot(*zip(*points), marker=".", label=f"{name} {key.replace('_', '-')}")
    left.set(xlabel="step", ylabel="loss per clip", title="Training loss")
    right.set(xlabel="step", ylabel="share", title="Validation", ylim=(0, 1))
    _finish(figure, (left, right), path)


def draw_scaling(results: Sequence[Result], path: Path) -> bool:
    """Figure 2: each task by the size of the pretraining data, a line per system; False without
    points.

    The paper prints values only for the whole corpus; they stand there as stars.
    """
    sized = [result for result in results if result["settings"].get("data_size")]
    panels = [(column, points) for column in _columns(sized) if (points := _points(sized, column))]
    if not panels:
        return False
    pyplot = _pyplot()
    rows, columns = (len(panels) + 3) // 4, min(len(panels), 4)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(4 * columns, 3.2 * rows), squeeze=False, layout="constrained"
    )
    for place, (column, points) in zip(axes.flat, panels):
        known = {size for line in points.values() for size in line} | (
            {WHOLE} if column["paper"] else set()
        )
        sizes = sorted(known, key=size_of)
        for system, line in sorted(points.items()):
            color, style = STYLES.get(system, (None, ":"))
            marks = sorted((sizes.index(size), value) for size, value in line.items())
            place.plot(*zip(*marks), linestyle=style, color=color, marker="o", label=_label(system))
        for system, value in column["paper"].items():
            place.plot(
                sizes.index(WHOLE), value, "*", color=STYLES[system][0], alpha=0.6, markersize=9
            )
        place.set_xticks(range(len(sizes)), sizes)
        star = " (★ paper)" if column["paper"] else ""
        place.set(title=column["title"], xlabel=f"captions{star}", ylabel=NAMES[column["metric"]])
    for unused in axes.flat[len(panels) :]:
        unused.set_axis_off()
    _finish(figure, axes.flat[: len(panels)], path)
    return True


def _columns(results: Sequence[Result]) -> list[dict]:
    """task, metric, title and the paper's values: first the columns of Tables 3a and 3b, then other
    tasks.
    """
    columns = []
    for table in (paper()["table_3a"], paper()["table_3b"]):
        for number, column in enumerate(table["columns"]):
            printed = {system: float(table["rows"][system][number]) for system in STYLES}
            columns.append(
                {**column, "title": f"{column['name']} {column['field']}", "paper": printed}
            )
    known = {column["task"] for column in columns}
    for task in sorted({result["task"] for result in results} - known):
        found = next(result for result in results if result["task"] == task)
        metric = next((name for name in FORMATS if name in found["metrics"]), None)
        if metric is not None:
            columns.append({"task": task, "metric": metric, "title": _label(task), "paper": {}})
    return columns


def _points(results: Sequence[Result], column: dict) -> dict[str, dict[str, float]]:
    """System -> data size -> value of a task."""
    pooling = MEAN_POOLING if column["task"].startswith("probe_") else ()
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in candidates(results, column["task"], pooling):
        groups.setdefault((result["system"], str(result["settings"]["data_size"])), []).append(
            result
        )
    points: dict[str, dict[str, float]] = {}
    for (system, size), group in groups.items():
        chosen = choose(group)
        if chosen and (value := value_of(chosen, column["metric"])) is not None:
            points.setdefault(system, {})[size] = value
    return points


def draw_probes(results: Sequence[Result], path: Path) -> bool:
    """Bars of every probe on test clips, encoders side by side; False without any."""
    probes: dict[str, dict[str, Result]] = {}
    for task in sorted(
        {result["task"] for result in results if result["task"].startswith("probe_")}
    ):
        found = candidates(results, task, MEAN_POOLING)
        by_system = {
            x: chosen
            for x in sorted({r["system"] for r in found})
            if (chosen := choose(r for r in found if r["system"] == x))
        }
        if by_system:
            probes[task] = by_system
    if not probes:
        return False
    pyplot = _pyplot()
    systems = sorted({system for row in probes.values() for system in row})
    width = 0.8 / len(systems)
    figure, axes = pyplot.subplots(figsize=(max(7, 1.6 * len(probes)), 4), layout="constrained")
    for number, system in enumerate(systems):
        present = [
            (place, row[system]) for place, row in enumerate(probes.values()) if system in row
        ]
        metrics = [main_metric(result) for _, result in present]
        heights = [result["metrics"][metric] for (_, result), metric in zip(present, metrics)]
        errors = [
            result["metrics"].get(f"{metric}_deviation", 0)
            for (_, result), metric in zip(present, metrics)
        ]
        places = [place + (number - (len(systems) - 1) / 2) * width for place, _ in present]
        axes.bar(places, heights, width, yerr=errors, label=_label(system))
    axes.set_xticks(
        range(len(probes)),
        [_label(task.removeprefix("probe_")) for task in probes],
        rotation=20,
        ha="right",
    )
    axes.set(ylabel="mAP, accuracy or PSDS1", title="Probes on frozen encoders", ylim=(0, 1))
    _finish(figure, (axes,), path)
    return True


def _label(name: str) -> str:
    """A name that is not taken for a formula."""
    return name.replace("$", r"\$")


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _finish(figure, panels, path: Path) -> None:
    for axes in panels:
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    with atomic_write(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=120, metadata={"Software": None})
    _pyplot().close(figure)
