"""A table of the report, and its Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

MISSING = "missing"  # a number that the study should have and that no result file holds
NONE = "–"  # a number that the paper does not have


@dataclass(frozen=True)
class Table:
    """Rows of text below a head; every row is as long as the head."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.head) for row in self.rows):
            raise ValueError(
                f"{self.title}: rows of {[len(row) for row in self.rows]} cells below"
                f" {len(self.head)}"
            )


def as_markdown(table: Table) -> str:
    """A heading, the note and the table."""
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    body = "\n".join("| " + " | ".join(map(markdown_cell, row)) + " |" for row in lines)
    return "\n\n".join(filter(None, [f"## {table.title}", table.note, body]))


def markdown_cell(text: str) -> str:
    """Text that cannot leave its cell: captions and names are not ours."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
