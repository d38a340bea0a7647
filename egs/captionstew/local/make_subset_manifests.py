#!/usr/bin/env python3
"""Training and validation manifests of every subset: <data-dir>/<subset>/cuts_train.jsonl,
cuts_valid.jsonl.

./local/make_subset_manifests.py --corpora corpora.csv --data-dir data --subsets 400k 1M 4M all
"""

import argparse
import json
from pathlib import Path

from captionstew.corpora.build.corpus_list import read_corpora
from captionstew.corpora.build.subset_manifests import hold_out, rank_and_write, source_weights
from captionstew.corpora.build.subsets import SUBSET_SIZES, parse_size
from captionstew.errors import run_main


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True, help="has audio_check/")
    parser.add_argument(
        "--subsets",
        nargs="+",
        default=list(SUBSET_SIZES),
        help="numbers of captions: 2500 400k 1M all",
    )
    parser.add_argument("--valid-share", type=float, default=0.005, help="of the recordings")
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    data = args.data_dir
    for name in args.subsets:
        parse_size(name)
    coverage = json.loads((data / "audio_check" / "coverage.json").read_text(encoding="utf-8"))
    training, validation = (
        data / "audio_check" / "training.parquet",
        data / "audio_check" / "validation.parquet",
    )
    hold_out(
        data / "audio_check" / "checked.parquet", training, validation, args.valid_share, args.seed
    )
    weights = source_weights(read_corpora(args.corpora), data / "filtered")
    counts = rank_and_write(
        training, validation, data, args.subsets, {"coverage": coverage}, args.seed, weights
    )
    print(
        "\n".join(
            f"{name}: {count} clips in {data / name / 'cuts_train.jsonl'}"
            for name, count in counts.items()
        )
    )


if __name__ == "__main__":
    run_main(main)
