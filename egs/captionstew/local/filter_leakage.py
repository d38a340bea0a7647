#!/usr/bin/env python3
"""Drop from the caption tables what evaluations use; report it in leakage.json and leakage.md.

./local/filter_leakage.py --corpora corpora.csv --data-dir data --leakage strict
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from captionstew.corpora.build.corpus_list import Entry, read_corpora
from captionstew.corpora.build.leakage import MODES, filter_tables, report_as_markdown
from captionstew.data.tables.database import MEMORY_GB, connect
from captionstew.errors import run_main
from captionstew.files import write_json, write_text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument(
        "--data-dir", type=Path, required=True, help="has tables/ and evaluation_keys.parquet"
    )
    parser.add_argument("--leakage", choices=MODES, default="strict")
    parser.add_argument(
        "--license-filter", default="", help="shell patterns of licenses to leave out, with commas"
    )
    parser.add_argument("--memory-gb", type=float, default=MEMORY_GB)
    args = parser.parse_args()
    data, output = args.data_dir, args.data_dir / "filtered"
    shutil.rmtree(output, ignore_errors=True)  # a corpus taken off the list must not stay
    patterns = [x.strip() for x in args.license_filter.split(",") if x.strip()]
    entries = read_corpora(args.corpora)
    gathered = json.loads((data / "evaluation_lists.json").read_text(encoding="utf-8"))
    with connect(data / "scratch", args.memory_gb) as connection:
        report = filter_tables(
            connection,
            entries,
            data / "tables",
            data / "evaluation_keys.parquet",
            output,
            args.leakage,
            patterns,
            gathered["sets"],
            data / "evaluation_hashes.parquet",
        )
    report["missing_lists"] = gathered["missing"]
    report["shipped_lists"] = gathered["shipped"]
    report["unheard_lists"] = gathered["unheard"]
    report["unprotected"] = read_unprotected(entries, data / "tables")
    write_json(data / "leakage.json", report)
    write_text(data / "leakage.md", report_as_markdown(report))
    total = report["total"]
    print(
        f"{total['leaked_clips']} of {total['clips']} clips leak and are dropped; see"
        f" {data / 'leakage.md'}"
    )


def read_unprotected(entries: Sequence[Entry], tables: Path) -> dict[str, list[str]]:
    """Corpus -> what its reader said that the filter cannot know."""
    found = {}
    for name in {entry.name for entry in entries if entry.role == "pretrain" and entry.weight > 0}:
        report = json.loads((tables / f"{name}.report.json").read_text(encoding="utf-8"))
        if report["unprotected"]:
            found[name] = report["unprotected"]
    return found


if __name__ == "__main__":
    run_main(main)
