#!/usr/bin/env python3
"""Print the list of corpora for the shell: "<name> <split> <split> ..." a line, or "<name>:<split>"
with --pairs.

./local/list_corpora.py corpora.csv pretrain
"""

import argparse
from pathlib import Path

from captionstew.corpora.build.corpus_list import ALL_SPLITS, ROLES, read_corpora
from captionstew.errors import run_main


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpora", type=Path)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--pairs", action="store_true")
    args = parser.parse_args()
    entries = [e for e in read_corpora(args.corpora) if e.role == args.role and e.weight > 0]
    if args.pairs:
        print("\n".join(f"{entry.name}:{entry.split}" for entry in entries))
        return
    for name in dict.fromkeys(entry.name for entry in entries):
        splits = [entry.split for entry in entries if entry.name == name]
        print(name, *([] if ALL_SPLITS in splits else splits))


if __name__ == "__main__":
    run_main(main)
