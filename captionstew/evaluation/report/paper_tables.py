"""Tables 1 to 10 in the shape of the paper, its numbers beside ours. Cells that nothing fills say
so.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from captionstew.evaluation.report.lookup import (
    NAMES,
    Result,
    candidates,
    choose,
    remarks,
    written,
)
from captionstew.evaluation.report.tables import MISSING, NONE, Table
from captionstew.paper import paper

MEAN_POOLING = ("mean", "mean_std", "frames", "embeddings")
ATTENTION_POOLING = ("attention",)
TRAINED = "trained: how many of them the model was trained on, ? where that is unknown"
EXAMPLE_LENGTH = 300  # characters of a caption in Table 6


def paper_tables(results: Sequence[Result], analysis: Path | None) -> list[Table]:
    """All ten (Table 3 in two parts).

    Args:
      analysis: folder that egs/captionstew/local/analyse.py wrote, for Tables 1, 4, 5 and 6.
    """
    corpora = (
        json.loads((analysis / "analysis.json").read_text(encoding="utf-8")) if analysis else {}
    )
    return [
        corpus_sizes(corpora),
        evaluation_sets(results),
        system_table("table_3a", results, MEAN_POOLING),
        system_table("table_3b", results),
        lexical_statistics(corpora),
        corpus_sources(corpora),
        example_captions(analysis),
        from_scratch(results),
        set_sizes(results),
        system_table("table_9", results, ATTENTION_POOLING),
        own_retrieval(results),
    ]


def corpus_sizes(corpora: Mapping[str, Any]) -> Table:
    """Table 1."""
    rows = []
    for name, (title, pairs, vocabulary) in with_ours(
        paper()["table_1"]["rows"], corpora.get("counts", ()), 2
    ):
        words = words_of(corpora, name)
        ours = corpora.get("counts", {}).get(name, words)
        before = corpora.get("before_filter", {}).get(name, {})
        cells = [number(one) for one in (before.get("captions"), ours.get("captions"))]
        cells += [vocabulary]
        cells += [number(one) for one in (before.get("vocabulary"), words.get("vocabulary"))]
        rows.append([title, pairs, *cells])
    head = ["corpus"]
    for what in ("pairs", "vocabulary"):
        head += [f"{what}, paper", f"{what}, released", f"{what}, ours"]
    return Table(
        paper()["table_1"]["title"],
        head,
        rows,
        "Released: as read. Ours: after the leakage filter and the duration rule. Words in lower"
        " case without punctuation.",
    )


def evaluation_sets(results: Sequence[Result]) -> Table:
    """Table 2."""
    rows = []
    for row in paper()["table_2"]["rows"]:
        tasks = row["results"].split()
        systems = {result["system"] for task in tasks for result in candidates(results, task)}
        ours = f"{len(systems)} system{'s' * (len(systems) != 1)}" if systems else MISSING
        rows.append([row["name"], row["protocol"], row["task"], row["metric"], ours])
    return Table(
        paper()["table_2"]["title"], ["set", "protocol", "task", "metric", "evaluated here"], rows
    )


def system_table(name: str, results: Sequence[Result], pooling: Sequence[str] = ()) -> Table:
    """Tables 3a, 3b and 9: a row per system, of every task the paper's number and ours."""
    table, names = paper()[name], paper()["systems"]
    found = {
        column["task"]: candidates(results, column["task"], pooling) for column in table["columns"]
    }
    others = {result["system"] for listed in found.values() for result in listed} - set(
        table["rows"]
    )
    rows = []
    for system in [*table["rows"], *sorted(others)]:
        title, initialization, pretraining = names.get(system, (system, "", ""))
        printed = table["rows"].get(system, [NONE] * len(table["columns"]))
        cells = []
        for column, theirs in zip(table["columns"], printed):
            ours = choose(result for result in found[column["task"]] if result["system"] == system)
            cells += [theirs, NONE if system == "sota" else written(ours, column["metric"])]
        rows.append([title, initialization, pretraining, *cells])
    head = ["system", "initialization", "pretraining"]
    for column in table["columns"]:
        head += [f"{column['field']} {column['name']} {NAMES[column['metric']]}, paper", "ours"]
    note = (
        "† quoted by the paper from elsewhere. Ours: ± is the deviation over the seeds of the"
        " heads; (n = ...) is the number of clips, where the test set is not the paper's;"
        f" {TRAINED}."
    )
    return Table(table["title"], head, rows, note)


def lexical_statistics(corpora: Mapping[str, Any]) -> Table:
    """Table 4."""
    rows = []
    columns = paper()["table_4"]["columns"]
    for name, (title, *printed) in with_ours(
        paper()["table_4"]["rows"], corpora.get("statistics", ()), len(columns)
    ):
        words, equal = words_of(corpora, name), words_of(corpora, name, "equal_size")
        ours = [number(words.get("vocabulary")), number(words.get("mean_length"), 2)]
        ours += [number(words.get(f"distinct{n}"), 3) for n in (1, 2, 3, 4)]
        cells = [cell for pair in zip(printed, ours) for cell in pair]
        sample = [
            number(equal.get("captions")),
            *(number(equal.get(f"distinct{n}"), 3) for n in (1, 2, 3, 4)),
        ]
        rows.append([title, *cells, *sample])
    head = ["source", *(cell for column in columns for cell in (f"{column}, paper", "ours"))]
    head += ["captions in our sample", *(f"distinct-{n} of it" for n in (1, 2, 3, 4))]
    note = (
        "Distinct-n falls as a corpus grows; the paper states neither its tokenisation nor the size"
        " of its samples."
    )
    return Table(paper()["table_4"]["title"], head, rows, note)


def corpus_sources(corpora: Mapping[str, Any]) -> Table:
    """Table 5."""
    rows = []
    for name, (title, sizes, *about) in with_ours(
        paper()["table_5"]["rows"], corpora.get("counts", ()), 4
    ):
        counts = corpora.get("counts", {}).get(name)
        rows.append(
            [
                title,
                sizes,
                f"{counts['clips']:,}/{counts['captions']:,}" if counts else MISSING,
                number(counts.get("recordings")) if counts else MISSING,
                *about,
            ]
        )
    head = [
        "corpus",
        "clips/captions, paper",
        "ours",
        "recordings, ours",
        *paper()["table_5"]["columns"][1:],
    ]
    return Table(paper()["table_5"]["title"], head, rows)


def example_captions(analysis: Path | None) -> Table:
    """Table 6: the first sampled caption of each source."""
    first: dict[str, str] = {}
    if analysis and (analysis / "points.csv").is_file():
        with open(analysis / "points.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                first.setdefault(row["source"], row["caption"][:EXAMPLE_LENGTH])
    names = {
        name: row[0] for name, row in paper()["table_5"]["rows"].items() if name != "captionstew"
    }
    sources = [*names, *(name for name in first if name not in names)]
    rows = [[names.get(name, name), first.get(name, MISSING)] for name in sources]
    return Table(paper()["table_6"]["title"], ["source", "caption, ours"], rows)


def from_scratch(results: Sequence[Result]) -> Table:
    """Table 7."""
    columns = paper()["table_7"]["columns"]
    ours = []
    for column in columns:
        probing = column["task"].startswith(
            "probe_"
        )  # an AudioSet tagger is always trained with its encoder
        ours.append(
            written(choose(candidates(results, column["task"], scratch=probing)), column["metric"])
        )
    head = ["", *(f"{column['name']} {NAMES[column['metric']]}" for column in columns)]
    return Table(
        paper()["table_7"]["title"],
        head,
        [["paper", *(column["paper"] for column in columns)], ["ours", *ours]],
    )


def set_sizes(results: Sequence[Result]) -> Table:
    """Table 8."""
    rows = []
    for row in paper()["table_8"]["rows"]:
        result = choose(candidates(results, row["task"])) if row["task"] else None
        settings = result["settings"] if result else {}
        ours = [
            num_train(settings, row.get("questions")),
            result["num_clips"] if result else None,
            settings.get("num_classes"),
        ]
        theirs = [row["train"], row["test"], row["classes"]]
        cells = [
            (printed, NONE if printed == NONE else number(count))
            for printed, count in zip(theirs, ours)
        ]
        rows.append([row["name"], *(cell for pair in cells for cell in pair)])
    head = ["set", "training, paper", "ours", "test, paper", "ours", "classes, paper", "ours"]
    return Table(paper()["table_8"]["title"], head, rows, paper()["table_8"]["note"])


def num_train(settings: Mapping[str, Any], questions: str | None) -> int | None:
    """Training clips of a task, or training questions of a source."""
    count = settings.get("num_train")
    return count.get(questions) if isinstance(count, Mapping) else count


def own_retrieval(results: Sequence[Result]) -> Table:
    """Table 10."""
    table = paper()["table_10"]
    places = [(way, corpus) for way in table["directions"] for corpus in table["corpora"]]
    found = {corpus: candidates(results, f"own_retrieval_{corpus}") for corpus in table["corpora"]}
    others = {result["system"] for listed in found.values() for result in listed} - set(
        table["rows"]
    )
    rows = []
    for system in [*table["rows"], *sorted(others)]:
        title, *printed = table["rows"].get(system, [system, *[NONE] * len(places)])
        cells = []
        for (way, corpus), theirs in zip(places, printed):
            ours = choose(result for result in found[corpus] if result["system"] == system)
            metrics = ours["metrics"] if ours else {}
            found_recalls = (metrics.get(f"{way}_r{k}") for k in (1, 5))
            recalls = [recall for recall in found_recalls if recall is not None]
            known = ours if len(recalls) == 2 else None
            cells += [theirs, two_recalls(recalls) + remarks(known) if known else MISSING]
        rows.append([title, *cells])
    head = ["model"]
    for way, corpus in places:
        head += [f"{table['directions'][way]}, {table['corpora'][corpus]}, paper", "ours"]
    return Table(
        table["title"],
        head,
        rows,
        f"{table['note']} (n = ...): clips, where not the paper's test set; {TRAINED}.",
    )


def two_recalls(recalls: Sequence[float]) -> str:
    return " / ".join(f"{100 * value:.1f}" for value in recalls)


def with_ours(
    printed: Mapping[str, Sequence[str]], names: Iterable[str], num_cells: int
) -> Iterable[tuple[str, Sequence[str]]]:
    """The paper's rows, then an empty one for each of our corpora that the paper does not list."""
    yield from printed.items()
    for name in names:
        if name not in printed:
            yield name, [name, *[NONE] * num_cells]


def words_of(corpora: Mapping[str, Any], name: str, part: str = "") -> Mapping[str, Any]:
    """Lexical statistics of a corpus, counted in words."""
    statistics = corpora.get("statistics", {}).get(name, {})
    return (statistics.get(part, {}) if part else statistics).get("words", {})


def number(value: float | None, digits: int = 0) -> str:
    """`12,345`, `0.123`, or `missing`."""
    return MISSING if value is None else f"{value:,.{digits}f}"
