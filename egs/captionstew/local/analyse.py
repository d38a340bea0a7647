#!/usr/bin/env python3
"""Tables 1, 4, 5 and Figure 3 of the corpus:
<data-dir>/analysis/{index.html,analysis.md,analysis.json,sources.png,points.csv}, without a figure
for a few captions.

./local/analyse.py --data-dir data --reference-texts wikitext.txt
"""

import argparse
import csv
from pathlib import Path

from captionstew.corpora.build.corpus_statistics import (
    EQUAL_SIZE,
    WHOLE,
    NoFigure,
    as_markdown,
    as_page,
    count_before_filter,
    count_corpora,
    draw_sources,
    embed_captions,
    lexical_statistics,
    project,
    sample_captions,
    table_rows,
)
from captionstew.corpora.build.diversity import TOKENISATIONS
from captionstew.errors import run_main
from captionstew.files import atomic_write, write_json, write_text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-dir", type=Path, required=True, help="has filtered/ and clips.parquet"
    )
    parser.add_argument(
        "--reference-texts", type=Path, nargs="*", default=[], help="one sentence a line"
    )
    parser.add_argument("--sentence-model", help="name or folder of a sentence-transformers model")
    parser.add_argument("--points-per-source", type=int, default=500)
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    output = args.data_dir / "analysis"
    output.mkdir(parents=True, exist_ok=True)
    sources = {path.stem: path for path in sorted((args.data_dir / "filtered").glob("*.parquet"))}
    tables = {**sources, WHOLE: args.data_dir / "clips.parquet"}
    statistics = lexical_statistics(tables, args.reference_texts, args.seed)
    counts = count_corpora(tables)
    released = {path.stem: path for path in sorted((args.data_dir / "tables").glob("*.parquet"))}
    method = make_figure(sources, output, args)
    notes = [
        f"After the leakage filter and the duration rule. Tokens: {TOKENISATIONS['words']}.",
        (
            "Distinct-n falls as a corpus grows, so it is also given for a sample of"
            f" {EQUAL_SIZE:,} captions at most."
        ),
        (
            "The paper does not state its tokenisation, and its distinct-n do not fit its corpus"
            " sizes."
        ),
    ]
    rows = table_rows(statistics, counts)
    content = {"statistics": statistics, "counts": counts, "figure": method}
    content["before_filter"] = count_before_filter(released)
    write_json(output / "analysis.json", content)
    write_text(output / "analysis.md", as_markdown(rows, notes))
    figure = output / "sources.png" if method else None
    write_text(output / "index.html", as_page(rows, notes, figure))
    print(f"open {output / 'index.html'}")


def make_figure(sources: dict[str, Path], output: Path, args: argparse.Namespace) -> str | None:
    """Writes sources.png and points.csv; returns the method, or None after a warning when captions
    are too few.
    """
    figure, table = output / "sources.png", output / "points.csv"
    for path in (figure, table):  # of an earlier run
        path.unlink(missing_ok=True)
    samples = [
        (x, name)
        for name in sources
        for x in sample_captions(sources[name], args.points_per_source, args.seed)
    ]
    try:
        embeddings, method = embed_captions(
            [caption for caption, _ in samples], args.sentence_model, args.seed
        )
    except NoFigure as error:
        print(f"warning: Figure 3 is left out: {error}")
        return None
    points = project(embeddings, args.seed)
    draw_sources(points, [name for _, name in samples], method, figure)
    with atomic_write(table, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["x", "y", "source", "caption"])
        writer.writerows(
            [f"{x:.4f}", f"{y:.4f}", name, text]
            for (x, y), (text, name) in zip(points, samples, strict=True)
        )
    return method


if __name__ == "__main__":
    run_main(main)
