#!/usr/bin/env python3
"""Write the hashes of the evaluation keys that come with the code (captionstew/corpora/build).

Lists that are not there are left out; those that are short are marked so. Clotho's names and the
Freesound ids that stand for the clips without one are kept apart.

./local/ship_keys.py --corpora-dir download --corpora corpora.csv \\
    --not-whole audioset_strong:eval
"""

import argparse
from pathlib import Path

from captionstew.corpora.build.corpus_list import read_corpora
from captionstew.corpora.build.evaluation_keys import IDS, gather_list
from captionstew.corpora.build.shipped_keys import FILE, write_shipped
from captionstew.errors import run_main


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora-dir", type=Path, required=True, help="one folder per corpus")
    parser.add_argument("--corpora", type=Path, required=True, help="the list of corpora")
    parser.add_argument(
        "--not-whole", nargs="*", default=[], help="lists of copies that leave clips out"
    )
    parser.add_argument("--output", type=Path, default=FILE)
    args = parser.parse_args()
    lists: dict[str, list[str]] = {}
    whole = []
    for entry in read_corpora(args.corpora):
        if entry.role != "evaluation":
            continue
        name = f"{entry.name}:{entry.split}"
        found = gather_list(args.corpora_dir, entry.name, entry.split, compare=False)
        print(f"{name}: {len(found.keys):,} keys{'; ' + found.problem if found.problem else ''}")
        if not found.keys:
            continue
        if entry.name == "clotho":
            ids = [key for key in found.keys if key.startswith("fs:")]
            lists[IDS] = sorted({*lists.get(IDS, []), *ids})
            found.keys[:] = [key for key in found.keys if not key.startswith("fs:")]
        lists[name] = found.keys
        if found.problem is None and name not in args.not_whole:
            whole.append(name)
    count = write_shipped(args.output, lists, whole)
    print(f"{count:,} keys of {len(lists)} lists, {args.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    run_main(main)
