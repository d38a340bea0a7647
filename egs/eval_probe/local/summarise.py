#!/usr/bin/env python3
"""What the tasks' manifests hold, as <data-dir>/coverage.md: per split clips listed, found, missing
and broken.

./local/summarise.py --data-dir data
"""

import argparse
import json
from pathlib import Path

from captionstew.errors import run_main
from captionstew.files import atomic_write

COLUMNS = ("listed", "found", "missing", "broken", "hours")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="has <task>/report.json")
    args = parser.parse_args()
    reports = sorted(args.data_dir.glob("*/report.json"))
    if not reports:
        raise ValueError(
            f"{args.data_dir}: no <task>/report.json; run prepare.sh --stage 1 --stop-stage 2 first"
        )
    lines = [
        "| task | classes | split | " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * (3 + len(COLUMNS)),
    ]
    for path in reports:
        report = json.loads(path.read_text(encoding="utf-8"))
        for split, row in report["splits"].items():
            cells = [
                report["corpus"],
                str(report["classes"]),
                split,
                *(str(row[name]) for name in COLUMNS),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    text = "# Clips of the probing tasks\n\n" + "\n".join(lines) + "\n"
    with atomic_write(args.data_dir / "coverage.md", "w", encoding="utf-8") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    run_main(main)
