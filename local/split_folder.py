"""Checks a folder of recordings with captions.csv (or a folder of such folders) and splits it into
manifests.

    python local/split_folder.py --corpus-dir my_recordings --output-dir data/mine --num-jobs 8

The form of the tables is described in captionstew/corpora/own/read.py. Clips of `--test-folds` and
`--valid-folds` are held out; clips without a fold are held out by a hash of their speaker, or of
their name. A second run does nothing.
"""

import argparse
from pathlib import Path

from captionstew.corpora.own.split import prepare_folder
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
        "--valid-folds", type=int, nargs="*", default=[4], help="folds for validation"
    )
    parser.add_argument("--test-folds", type=int, nargs="*", default=[5], help="folds for testing")
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
