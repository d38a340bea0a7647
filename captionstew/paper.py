"""The paper's numbers as printed (`paper.json`), by table; keys are this repository's names of
systems and corpora.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def paper() -> dict[str, Any]:
    """Table -> its title, columns and rows. Cells are strings as printed; † marks numbers that the
    paper quotes.
    """
    return json.loads(Path(__file__).with_name("paper.json").read_text(encoding="utf-8"))
