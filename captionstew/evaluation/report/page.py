"""The report as one HTML file that needs nothing else: no network, no other file, works from
file://.

Captions, names of systems and of clips are not ours: every text is escaped, and the page forbids
itself every script but its own, and every connection.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from captionstew.evaluation.report.examples import Retrieved
from captionstew.evaluation.report.tables import MISSING, Table

HERE = Path(__file__).parent
LONG = 60  # characters; longer cells take several lines


def render_page(
    measured: Sequence[Table],
    paper: Sequence[Table],
    files: Table,
    figures: Mapping[str, Path],
    examples: Mapping[str, list[dict]],
) -> str:
    """The page's source.

    Args:
      figures: title -> PNG file.
      examples: as read_examples gives them.
    """
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    sections = {table.title: as_html(table) for table in measured}
    sections |= {
        title: f'<img alt="{escape(title)}" src="{data_uri(path)}">'
        for title, path in figures.items()
    }
    if examples:
        sections["Listen"] = "".join(
            example_card(cut_id, rows) for cut_id, rows in examples.items()
        )
    sections |= {table.title: as_html(table) for table in [*paper, files]}
    links = "".join(
        f'<a href="#s{number}">{escape(title)}</a>' for number, title in enumerate(sections)
    )
    body = "".join(
        f'<section id="s{number}"><h2>{escape(title)}</h2>{content}</section>'
        for number, (title, content) in enumerate(sections.items())
    )
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src '{checksum(style)}';"
        f" script-src '{checksum(script)}'; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta'
        f' http-equiv="Content-Security-Policy" content="{policy}"><meta name="viewport"'
        ' content="width=device-width"><link rel="icon" href="data:,"><title>CaptionStew'
        f" results</title><style>{style}</style></head><body><h1>CaptionStew"
        f" results</h1><nav>{links}</nav>{body}<script>{script}</script></body></html>\n"
    )


def as_html(table: Table) -> str:
    """A table whose heads are buttons that sort it."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = "".join("<tr>" + "".join(map(cell_html, row)) + "</tr>" for row in table.rows)
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    return (
        f"{note}<div"
        f' class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def cell_html(text: str) -> str:
    kind = ' class="missing"' if text == MISSING else ' class="long"' if len(text) > LONG else ""
    return f"<td{kind}>{escape(text)}</td>"


def example_card(cut_id: str, rows: Sequence[dict]) -> str:
    """A clip: player, captions, and what each system generated and retrieved."""
    captions = "".join(f"<li>{escape(caption)}</li>" for caption in rows[0]["captions"])
    said = []
    for row in rows:
        if row["generated"] is not None:
            said.append(
                f"<p>{escape(row['system'])} writes: <q>{escape(str(row['generated']))}</q></p>"
            )
        if row["retrieved"]:
            ranked = "".join(map(retrieved_html, row["retrieved"]))
            said.append(
                f"<p>{escape(row['system'])} finds (own captions bold):</p><ol>{ranked}</ol>"
            )
    return (
        f"<article><h3>{escape(cut_id)}</h3>"
        f'<audio controls preload="metadata" src="{data_uri(rows[0]["audio"])}"></audio>'
        f"<ul>{captions}</ul>{''.join(said)}</article>"
    )


def retrieved_html(retrieved: Retrieved) -> str:
    own = ' class="own"' if retrieved.own else ""
    return f"<li{own}>{escape(retrieved.caption)} ({retrieved.score:.2f})</li>"


def data_uri(path: Path) -> str:
    kind = {".png": "image/png", ".mp3": "audio/mpeg"}[path.suffix]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def checksum(text: str) -> str:
    """Of an inline script or style, as the content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
