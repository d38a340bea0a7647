#!/usr/bin/env python3
"""Synthesises the mini corpus and splits it into training, validation and test manifests.

    python local/split_mini.py --output-dir data/mini --num-jobs 2

The audio goes to `corpus` below the output folder, which may be moved as a whole. A second run does
nothing.
"""

import argparse
import json
from pathlib import Path

from captionstew.corpora.mini.make import make_mini_corpus
from captionstew.corpora.own.prepare import prepare_folder
from captionstew.errors import run_main
from captionstew.files import atomic_write
from captionstew.locks import one_writer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output-dir", type=Path, required=True, help="where audio and manifests go"
    )
    parser.add_argument(
        "--num-clips", type=int, default=1500, help="of all three domains and five folds together"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other clips")
    parser.add_argument("--num-jobs", type=int, default=2, help="processes")
    args = parser.parse_args()
    corpus, marker = args.output_dir / "corpus", args.output_dir / "corpus.json"
    settings = {"num_clips": args.num_clips, "seed": args.seed}
    with one_writer(corpus, wait=True):
        if not marker.is_file() or json.loads(marker.read_text(encoding="utf-8")) != settings:
            make_mini_corpus(corpus, args.num_clips, args.seed, args.num_jobs)
            with atomic_write(marker, "w", encoding="utf-8") as file:
                json.dump(settings, file)
    prepare_folder(corpus, args.output_dir, num_jobs=args.num_jobs)


if __name__ == "__main__":
    run_main(main)
