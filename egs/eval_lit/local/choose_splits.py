#!/usr/bin/env python3
"""Train, validation and test tables of a corpus: <data-dir>/tables/{train,valid,test}.parquet.

./local/choose_splits.py --corpus musiccaps --table data/musiccaps/tables/musiccaps.parquet \\
    --output-dir data/musiccaps/tables
"""

import argparse
import sys
from pathlib import Path

from captionstew.corpora.lit_splits import CORPORA, split_table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", choices=sorted(CORPORA), required=True)
    parser.add_argument(
        "--table", type=Path, required=True, help="what local/prepare_corpus.py wrote"
    )
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument(
        "--seed", type=int, default=42, help="of the drawn test and validation clips"
    )
    args = parser.parse_args()
    try:
        counts = split_table(args.table, args.corpus, args.output_dir, args.seed)
    except (OSError, ValueError) as error:
        sys.exit(f"choose_splits: {error}")
    print(
        f"{args.corpus}: "
        + ", ".join(f"{count} clips to {split}" for split, count in counts.items())
    )


if __name__ == "__main__":
    main()
