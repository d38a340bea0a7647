"""The one file that says what a recipe's corpus consists of (`corpora.csv` in its folder).

    name,split,role,weight
    audiocaps,train,pretrain,1
    audiocaps,test,evaluation,

role    pretrain: captions to train on. evaluation: recordings that may not be among them.
split   as the corpus' module calls it (of a folder of one's own: train, valid, test); "*" means
        every split in the table
weight  share of the corpus in subsets, relative to its number of captions; 0 leaves it out

A name is a known corpus (`local/prepare_corpus.py --list`) with its release in
`<corpora-dir>/<name>`, or else a folder `<corpora-dir>/<name>` with `captions.csv`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from captionstew.corpora.release import ReleaseError, read_csv

ROLES = ("pretrain", "evaluation")
ALL_SPLITS = "*"


@dataclass(frozen=True)
class Entry:
    """One line of the list."""

    name: str
    split: str
    role: str
    weight: float


def read_corpora(path: Path) -> list[Entry]:
    """All entries in the order of the file; raises ReleaseError that names the line."""
    entries = []
    for number, row in enumerate(read_csv(path, ("name", "split", "role", "weight")), 2):
        name, split, role = (
            row["name"].strip(),
            row["split"].strip() or ALL_SPLITS,
            row["role"].strip(),
        )
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ReleaseError(
                f"{path}, line {number}: {name!r} is not a plain name (letters, digits, _ and -)"
            )
        if role not in ROLES:
            raise ReleaseError(
                f"{path}, line {number}: role {role!r} is none of {', '.join(ROLES)}"
            )
        try:
            weight = float(row["weight"] or 1)
        except ValueError:
            weight = -1.0
        if not 0 <= weight < float("inf"):
            raise ReleaseError(
                f"{path}, line {number}: weight {row['weight']!r} is not a number from 0 up"
            )
        entries.append(Entry(name, split, role, weight))
    if not any(entry.role == "pretrain" and entry.weight > 0 for entry in entries):
        raise ReleaseError(f"{path}: no corpus has the role pretrain and a weight above 0")
    doubles = [entry for i, entry in enumerate(entries) if entry in entries[:i]]
    if doubles:
        raise ReleaseError(
            f"{path}: {doubles[0].name},{doubles[0].split},{doubles[0].role} is listed twice"
        )
    return entries
