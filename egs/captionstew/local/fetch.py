#!/usr/bin/env python3
"""Fetch the releases on the list of corpora, as far as a script can, into <corpora-dir>/<name>;
print the steps that are left.

./local/fetch.py --corpora corpora.csv --corpora-dir download --fetch metadata
./local/fetch.py --corpora corpora.csv --corpora-dir download --fetch all --limit 100
"""

import argparse
import sys
from pathlib import Path

from captionstew.corpora import known
from captionstew.corpora.build.corpus_list import read_corpora
from captionstew.corpora.fetch import AUDIO, METADATA, fetch
from captionstew.errors import program_name, run_main

CHOICES = {"metadata": (METADATA,), "audio": (AUDIO,), "all": (METADATA, AUDIO)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--corpora-dir", type=Path, required=True)
    parser.add_argument("--fetch", choices=tuple(CHOICES), required=True)
    parser.add_argument("--limit", type=int, help="files of every source, for a trial")
    parser.add_argument("--num-jobs", type=int, default=4, help="connections at a time")
    args = parser.parse_args()
    failed = 0
    for name in dict.fromkeys(entry.name for entry in read_corpora(args.corpora)):
        sources = getattr(known.load(name), "FETCH", ()) if name in known.MODULES else ()
        folder = args.corpora_dir / known.folder(name)
        done, errors, steps = fetch(
            sources, folder, CHOICES[args.fetch], limit=args.limit, num_jobs=args.num_jobs
        )
        print(f"{name}: {len(done)} files in {folder}")
        for step in steps:
            print(f"  by hand: {step}")
        for error in errors:
            print(f"{program_name()}: {name}: {error}", file=sys.stderr)
        failed += len(errors)
    if failed:
        print(f"{program_name()}: {failed} files are missing; run it again", file=sys.stderr)
    return int(failed > 0)


if __name__ == "__main__":
    run_main(main)
