"""The report of an experiment folder, from its result files and curves alone.

    python -m captionstew.evaluation.report --exp-dir exp

writes <exp-dir>/report/report.md (tables) and curves.png (losses and validation recall of every training run).
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captionstew.data.programs import run_main
from captionstew.evaluation.results import read_results
from captionstew.training.log import read_scalars

Result = dict[str, Any]


def write_report(exp_dir: Path) -> Path:
    """Writes <exp_dir>/report/ and returns the path of its Markdown file.

    Raises:
      ValueError: there is no result file below the folder.
    """
    results = read_results(exp_dir)
    if not results:
        raise ValueError(f"{exp_dir}: no results/*.json below it; run an evaluation first")
    folder = exp_dir / "report"
    folder.mkdir(parents=True, exist_ok=True)
    sections = [retrieval_table(results), zero_shot_table(results), probe_table(results)]
    runs = sorted(path.parent for path in exp_dir.rglob("scalars.jsonl"))
    if runs:
        draw_curves(runs, exp_dir, folder / "curves.png")
        sections.append("![Losses and validation recall](curves.png)")
    path = folder / "report.md"
    path.write_text("\n\n".join(["# Results", *filter(None, sections)]) + "\n", encoding="utf-8")
    return path


def retrieval_table(results: Sequence[Result]) -> str:
    """Recalls in both directions beside the recall of permuted pairs."""
    rows = []
    for result in results:
        if result["task"] != "retrieval":
            continue
        metrics = result["metrics"]
        rule = result["settings"]["duplicate_captions"]
        for direction in ("text_to_audio", "audio_to_text"):
            recalls = [with_interval(metrics, f"{direction}_r{k}") for k in (1, 5, 10)]
            chance = f"{metrics[f'{direction}_r10_chance']:.3f}"
            times = f"{metrics[f'{direction}_r10'] / max(metrics[f'{direction}_r10_chance'], 1e-9):.1f}"
            rows.append([result["system"], result["split"], rule, direction.replace("_", "-"), *recalls, chance, times,
                         str(result["num_clips"])])  # fmt: skip
    head = [
        "system",
        "split",
        "duplicate captions",
        "direction",
        "R@1",
        "R@5",
        "R@10",
        "chance R@10",
        "x chance",
        "clips",
    ]
    return section("Retrieval (95 % bootstrap intervals)", head, rows)


def zero_shot_table(results: Sequence[Result]) -> str:
    """Accuracy of the nearest class sentence."""
    rows = [
        [
            result["system"],
            result["settings"]["subset"],
            with_interval(result["metrics"], "accuracy"),
            f"{result['metrics']['majority_class_share']:.3f}",
            str(result["metrics"]["num_classes"]),
            str(result["num_clips"]),
        ]
        for result in results
        if result["task"].startswith("zero_shot")
    ]
    return section("Zero-shot classification", ["system", "set", "accuracy", "largest class", "classes", "clips"], rows)


def probe_table(results: Sequence[Result]) -> str:
    """One row per frozen encoder, one column per task; deviation is over the seeds of the heads."""
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    tasks: list[str] = []
    for result in results:
        if not result["task"].startswith("probe_"):
            continue
        task = result["task"].removeprefix("probe_")
        if task not in tasks:
            tasks.append(task)
        metrics = result["metrics"]
        name = result["settings"]["metric"]
        cells[result["system"]][task] = (
            f"{metrics[name]:.3f} ± {metrics[name + '_deviation']:.3f} {interval(metrics[name + '_interval'])}"
        )
    tasks.sort(key=lambda task: (task == "average", task))
    rows = [[system, *(row.get(task, "missing") for task in tasks)] for system, row in sorted(cells.items())]
    title = "Linear probes on frozen encoders (mean ± deviation over seeds, interval over clips)"
    return section(title, ["encoder", *tasks], rows)


def with_interval(metrics: dict[str, Any], name: str) -> str:
    return f"{metrics[name]:.3f} {interval(metrics[name + '_interval'])}"


def interval(bounds: Sequence[float]) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"


def section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown heading and table; empty without rows."""
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return f"## {title}\n\n" + "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines
    )


def draw_curves(runs: Sequence[Path], exp_dir: Path, path: Path) -> None:
    """Training loss, and validation recall in both directions, by step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    for run in runs:
        records = read_scalars(run)
        name = str(run.relative_to(exp_dir))
        train = [record for record in records if record["kind"] == "train" and "loss" in record]
        left.plot([record["step"] for record in train], [record["loss"] for record in train], label=name)
        valid = [record for record in records if record["kind"] == "valid"]
        for key, style in (("text_to_audio_r10", "-"), ("audio_to_text_r10", "--")):
            points = [(record["step"], record[key]) for record in valid if key in record]
            if points:
                right.plot(*zip(*points), style, label=f"{name} {key.replace('_', '-')}")
    left.set(xlabel="step", ylabel="loss per clip", title="Training loss")
    right.set(xlabel="step", ylabel="R@10", title="Validation retrieval", ylim=(0, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp-dir", type=Path, required=True, help="folder whose result files are gathered")
    path = write_report(parser.parse_args().exp_dir)
    print(path.read_text(encoding="utf-8"))
    print(f"wrote {path}")


if __name__ == "__main__":
    run_main(main)
