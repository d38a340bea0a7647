"""The report of an experiment folder, from its result files, curves and examples alone."""

from pathlib import Path

from captionstew.evaluation.report.examples import read_examples
from captionstew.evaluation.report.figures import draw_curves, draw_probes, draw_scaling
from captionstew.evaluation.report.measured import file_table, measured_tables
from captionstew.evaluation.report.page import render_page
from captionstew.evaluation.report.paper_tables import paper_tables
from captionstew.evaluation.report.tables import as_markdown
from captionstew.evaluation.results import read_results
from captionstew.files import atomic_write, check_output, write_text

CURVES = "Training curves"
PROBES = "Probes side by side"
SCALING = "Figure 2: scaling with the pretraining data"
SOURCES = "Figure 3: captions by source"


def write_report(exp_dir: Path, analysis: Path | None = None) -> Path:
    """Writes <exp_dir>/report/{report.md,index.html} and its figures; returns the path of the
    Markdown file.

    Args:
      analysis: folder that egs/captionstew/local/analyse.py wrote; default <exp_dir>/analysis, if
          it is there.

    Raises:
      ValueError: there is no result file below the folder, or one that cannot be read.
    """
    results = read_results(exp_dir)
    if not results:
        raise ValueError(f"{exp_dir}: no results/*.json below it; run an evaluation first")
    if analysis is None and (exp_dir / "analysis" / "analysis.json").is_file():
        analysis = exp_dir / "analysis"
    if analysis is not None and not (analysis / "analysis.json").is_file():
        raise ValueError(
            f"{analysis}: no analysis.json; egs/captionstew/local/analyse.py writes it"
        )
    folder = exp_dir / "report"
    check_output(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures = draw_figures(exp_dir, results, analysis, folder)
    measured, paper = measured_tables(results), paper_tables(results, analysis)
    pictures = {title: f"## {title}\n\n![{title}]({path.name})" for title, path in figures.items()}
    sections = [
        "# Results",
        *map(as_markdown, measured),
        *pictures.values(),
        *map(as_markdown, paper),
    ]
    path = folder / "report.md"
    write_text(path, "\n\n".join(sections) + "\n", errors="replace")
    page = render_page(
        measured, paper, file_table(results, exp_dir), figures, read_examples(exp_dir)
    )
    write_text(folder / "index.html", page, errors="replace")
    return path


def draw_figures(
    exp_dir: Path, results: list, analysis: Path | None, folder: Path
) -> dict[str, Path]:
    """Title -> picture, of those that there is something to draw for."""
    figures = {}
    if runs := sorted(path.parent for path in exp_dir.rglob("scalars.jsonl")):
        figures[CURVES] = folder / "curves.png"
        draw_curves(runs, exp_dir, figures[CURVES])
    if draw_probes(results, folder / "probes.png"):
        figures[PROBES] = folder / "probes.png"
    if draw_scaling(results, folder / "scaling.png"):
        figures[SCALING] = folder / "scaling.png"
    if analysis is not None and (analysis / "sources.png").is_file():
        figures[SOURCES] = folder / "sources.png"
        with atomic_write(figures[SOURCES]) as file:
            file.write((analysis / "sources.png").read_bytes())
    return figures
