"""Analysis of the corpus (the paper's section 4.6): Tables 1, 4 and 5, and Figure 3, as files and
as one page.
"""

import base64
import html
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from captionstew.corpora.build.diversity import MAX_ORDER, TOKENISATIONS, diversity
from captionstew.corpora.keys import group_key
from captionstew.errors import UserError
from captionstew.files import atomic_write
from captionstew.hashing import key_hash
from captionstew.paper import paper

EQUAL_SIZE = 50_000  # captions of each corpus when distinct-n is compared
SVD_DIMENSIONS = 50
WHOLE = "captionstew"
MIN_POINTS = 4  # captions in a figure


class NoFigure(ValueError):
    """Too few captions, or too few words in them, to draw Figure 3; everything else can be done."""


def captions_of(table: Path) -> Iterator[tuple[str, str]]:
    """(clip, caption) of a caption table, or of a table of clips with lists of captions."""
    column = "caption" if "caption" in pq.read_schema(table).names else "captions"
    for batch in pq.ParquetFile(table).iter_batches(columns=["audio_key", column]):
        for key, found in zip(
            batch["audio_key"].to_pylist(), batch[column].to_pylist(), strict=True
        ):
            for caption in [found] if isinstance(found, str) else found:
                yield key, caption


def sample_captions(table: Path, size: int, seed: int) -> list[str]:
    """At most `size` captions, chosen by a hash of (seed, clip, caption): a fair and repeatable
    sample.
    """
    marked = ((key_hash(f"{key} {caption}", seed), caption) for key, caption in captions_of(table))
    return [caption for _, caption in nsmallest(size, marked)]


def read_lines(path: Path) -> Iterator[str]:
    """Sentences of a reference text: one a line, empty lines left out."""
    with open(path, encoding="utf-8") as stream:
        yield from (line.strip() for line in stream if line.strip())


def count_corpora(tables: Mapping[str, Path]) -> dict[str, dict[str, int]]:
    """Corpus -> clips, recordings that they were cut from (tracks, videos), and captions, from its
    table.
    """
    counts = {}
    for name, table in tables.items():
        captions, seen, recordings = 0, set[int](), set[int]()
        for batch in pq.ParquetFile(table).iter_batches(columns=["audio_key"]):
            found = batch["audio_key"].to_pylist()
            captions += len(found)
            seen.update(hash(key) for key in found)
            recordings.update(hash(group_key(key)) for key in found)
        if "num_captions" in pq.read_schema(table).names:
            captions = int(
                np.sum(pq.read_table(table, columns=["num_captions"])["num_captions"].to_numpy())
            )
        counts[name] = {"clips": len(seen), "recordings": len(recordings), "captions": captions}
    return counts


def count_before_filter(tables: Mapping[str, Path]) -> dict[str, dict[str, int]]:
    """Corpus -> captions and vocabulary of its release, where the paper's Table 1 counted them."""
    found = {
        name: diversity((caption for _, caption in captions_of(table)))
        for name, table in tables.items()
    }
    return {
        name: {key: words[key] for key in ("captions", "vocabulary")}
        for name, words in found.items()
    }


def reference_name(path: Path) -> str:
    """The row of a text file: the paper's, where it has one of that name (`cc12m.txt`)."""
    printed = paper()["table_1"]["rows"] | paper()["table_4"]["rows"]
    return path.stem if path.stem in printed else f"text:{path.name}"


def lexical_statistics(
    tables: Mapping[str, Path], references: Sequence[Path], seed: int
) -> dict[str, dict]:
    """Name -> tokenisation -> diversity of all its captions, and `equal_size`: of a sample of
    EQUAL_SIZE captions. Reference texts follow, by `reference_name`.
    """
    statistics = {}
    for name, table in tables.items():
        whole = {
            x: diversity((caption for _, caption in captions_of(table)), x) for x in TOKENISATIONS
        }
        sample = sample_captions(table, EQUAL_SIZE, seed)
        statistics[name] = {**whole, "equal_size": {x: diversity(sample, x) for x in TOKENISATIONS}}
    for path in references:
        whole = {x: diversity(read_lines(path), x) for x in TOKENISATIONS}
        lines = nsmallest(EQUAL_SIZE, ((key_hash(line, seed), line) for line in read_lines(path)))
        sample = [line for _, line in lines]
        statistics[reference_name(path)] = {
            **whole,
            "equal_size": {x: diversity(sample, x) for x in TOKENISATIONS},
        }
    return statistics


def embed_captions(
    captions: Sequence[str], sentence_model: str | None, seed: int
) -> tuple[np.ndarray, str]:
    """(captions, dimensions) float and the name of the method: a sentence-transformers model, else
    TF-IDF with SVD.

    Raises NoFigure for captions that are too few to be put in a plane, UserError or OSError for a
    model that is not there.
    """
    if len(captions) < MIN_POINTS:
        raise NoFigure(f"{len(captions)} captions are too few for a figure")
    if sentence_model:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise UserError("--sentence-model needs pip install sentence-transformers") from error
        return (
            SentenceTransformer(sentence_model).encode(list(captions)),
            f"sentence model {sentence_model}",
        )
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        weights = TfidfVectorizer(sublinear_tf=True).fit_transform(captions)
    except ValueError as error:  # not a single word of two letters
        raise NoFigure(f"the captions have too few words for a figure ({error})") from error
    dimensions = min(SVD_DIMENSIONS, min(weights.shape) - 1)
    if dimensions < 2:
        raise NoFigure("the captions have too few words for a figure")
    return (
        TruncatedSVD(dimensions, random_state=seed).fit_transform(weights),
        f"TF-IDF, SVD to {dimensions}",
    )


def project(embeddings: np.ndarray, seed: int) -> np.ndarray:
    """(N, 2) t-SNE of (N, D) embeddings (van der Maaten and Hinton 2008), cosine distances."""
    from sklearn.manifold import TSNE

    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(lengths, 1e-12)
    perplexity = min(30.0, max(1.0, (len(unit) - 1) / 3))
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(unit)


def draw_sources(points: np.ndarray, sources: Sequence[str], method: str, path: Path) -> None:
    """Figure 3: the points (N, 2) coloured by source."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
    for source in sorted(set(sources)):
        chosen = np.array([one == source for one in sources])
        x, y = points[chosen].T
        axes.scatter(x, y, s=6, label=source, alpha=0.7)
    axes.legend(markerscale=2, fontsize=8)
    axes.set(title=f"Captions by source (t-SNE of {method})", xticks=[], yticks=[])
    with atomic_write(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=150, metadata={"Software": None})
    plt.close(figure)


def table_rows(
    statistics: Mapping, counts: Mapping
) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Title -> (header, rows) of the three tables, the paper's numbers beside ours."""
    table_1, table_4, table_5 = [], [], []
    printed = {
        number: paper()[f"table_{number}"]["rows"] for number in (1, 4, 5)
    }  # name -> title, then the cells
    for name, found in statistics.items():
        words, equal = found["words"], found["equal_size"]["words"]
        ours = [f"{words['vocabulary']:,}", _decimal(words["mean_length"], 2)]
        ours += [_decimal(words[f"distinct{n}"], 3) for n in range(1, MAX_ORDER + 1)]
        sampled = [_decimal(equal[f"distinct{n}"], 3) for n in range(1, MAX_ORDER + 1)]
        theirs = printed[4].get(name, ["-"] * 7)[1:]
        table_4.append(
            [name, f"{words['captions']:,}", *ours, f"{equal['captions']:,}", *sampled, *theirs]
        )
        if name in counts or name in printed[1]:
            theirs = printed[1].get(name, ["-"] * 3)[1:]
            pairs = counts.get(name, words)["captions"]
            table_1.append([name, f"{pairs:,}", f"{words['vocabulary']:,}", *theirs])
        if name in counts:
            both = f"{counts[name]['clips']:,} / {counts[name]['captions']:,}"
            table_5.append([name, both, printed[5].get(name, ["-"] * 2)[1]])
    distinct = [f"distinct-{n}" for n in range(1, MAX_ORDER + 1)]
    header_4 = ["source", "captions", "vocabulary", "words/caption", *distinct, "sample", *distinct]
    header_4 += ["paper: vocabulary", "words/caption", *distinct]
    return {
        "Table 1: captions and vocabulary": (
            ["source", "captions", "vocabulary", "paper: captions", "vocabulary"],
            table_1,
        ),
        "Table 4: lexical diversity": (header_4, table_4),
        "Table 5: clips and captions": (["source", "clips / captions", "paper"], table_5),
    }


def _decimal(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def as_markdown(
    tables: Mapping[str, tuple[list[str], list[list[str]]]], notes: Iterable[str]
) -> str:
    """The tables as a Markdown page."""
    lines = ["# Analysis of the corpus", "", *notes, ""]
    for title, (header, rows) in tables.items():
        lines += [f"## {title}", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    return "\n".join(lines)


def as_page(
    tables: Mapping[str, tuple[list[str], list[list[str]]]],
    notes: Iterable[str],
    figure: Path | None,
) -> str:
    """The same as one HTML file that needs nothing else, without a figure if there is none; every
    text is escaped.
    """
    page = io.StringIO()
    page.write("<!doctype html><meta charset='utf-8'><title>Analysis of the corpus</title>")
    page.write(
        "<style>body{font:15px sans-serif;margin:2em;max-width:90em}td,th{padding:.2em"
        " .6em;text-align:right}"
    )
    page.write(
        "td:first-child,th:first-child{text-align:left}"
        "tr:nth-child(even){background:#f2f2f2}</style>"
    )
    page.write("<h1>Analysis of the corpus</h1>")
    for note in notes:
        page.write(f"<p>{html.escape(note)}</p>")
    for title, (header, rows) in tables.items():
        page.write(f"<h2>{html.escape(title)}</h2><table><tr>")
        page.write("".join(f"<th>{html.escape(cell)}</th>" for cell in header) + "</tr>")
        for row in rows:
            page.write("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>")
        page.write("</table>")
    if figure is not None:
        image = base64.b64encode(figure.read_bytes()).decode()
        page.write("<h2>Figure 3: captions by source</h2>")
        page.write(f"<img alt='t-SNE' src='data:image/png;base64,{image}' width='900'>")
    return page.getvalue()
