#!/usr/bin/env python3
"""Prints how many clips train, validate and test, and the seconds of audio to train on.

python local/count_clips.py --manifest-dir data/mine
900 300 300 4567
"""

import argparse
from pathlib import Path

from captionstew.data.manifests.cuts import open_cuts
from captionstew.errors import run_main


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--manifest-dir", type=Path, required=True, help="has cuts_train.jsonl, ..."
    )
    args = parser.parse_args()
    train, valid, test = (
        open_cuts(args.manifest_dir / f"cuts_{split}.jsonl") for split in ("train", "valid", "test")
    )
    print(len(train), len(valid), len(test), round(float(train.durations.sum())))


if __name__ == "__main__":
    run_main(main)
