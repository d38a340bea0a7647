#!/usr/bin/env python3
"""The same manifests with validation and test exchanged, so that a small corpus is tested on all
that it holds out.

python local/swap_held_out.py --manifest-dir data/recordings --output-dir data/recordings/swapped
"""

import argparse
import shutil
from pathlib import Path

from captionstew.data.manifests.cuts import open_cuts, write_cuts
from captionstew.errors import run_main

EXCHANGED = {"train": "train", "valid": "test", "test": "valid"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--manifest-dir",
        type=Path,
        required=True,
        help="has cuts_train.jsonl, cuts_valid.jsonl, ...",
    )
    parser.add_argument("--output-dir", type=Path, required=True)
    args = parser.parse_args()
    if args.output_dir.resolve() == args.manifest_dir.resolve():
        raise ValueError(f"--output-dir {args.output_dir} is --manifest-dir: give another folder")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    if (classes := args.manifest_dir / "classes.json").is_file():
        shutil.copy(classes, args.output_dir)
    for split, source in EXCHANGED.items():
        count = write_cuts(
            args.output_dir / f"cuts_{split}.jsonl",
            open_cuts(args.manifest_dir / f"cuts_{source}.jsonl"),
        )
        print(f"{args.output_dir / f'cuts_{split}.jsonl'}: {count} clips")


if __name__ == "__main__":
    run_main(main)
