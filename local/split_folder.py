#!/usr/bin/env python3
"""Checks a folder of recordings with captions.csv (or a folder of such folders) and splits it into
manifests.

    python local/split_folder.py --corpus-dir my_recordings --output-dir data/mine --num-jobs 8

The form of the tables is described in captionstew/corpora/own/read.py, who is held out in
captionstew/corpora/own/split.py: the column `split` decides, else the two highest folds (or
`--valid-folds` and `--test-folds`), else a hash of the speaker or the name. A second run does
nothing.
"""

import argparse
from pathlib import Path

from captionstew.corpora.own.prepare import prepare_folder
from captionstew.data.audio import MAX_DURATION
from captionstew.errors import run_main


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus-dir", type=Path, required=True, help="the folder with captions.csv"
    )
    parser.add_argument("--output-dir", type=Path, required=True, help="where the manifests go")
    parser.add_argument("--num-jobs", type=int, default=2, help="processes that check the audio")
    parser.add_argument(
        "--valid-folds", type=int, nargs="*", help="folds for validation (the second highest)"
    )
    parser.add_argument(
        "--test-folds", type=int, nargs="*", help="folds for testing (default: the highest)"
    )
    parser.add_argument(
        "--max-duration", type=float, default=MAX_DURATION, help="longest clip used (s)"
    )
    args = parser.parse_args()
    prepare_folder(
        args.corpus_dir,
        args.output_dir,
        valid_folds=args.valid_folds,
        test_folds=args.test_folds,
        num_jobs=args.num_jobs,
        max_duration=args.max_duration,
    )


if __name__ == "__main__":
    run_main(main)
