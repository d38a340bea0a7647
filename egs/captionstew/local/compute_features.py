#!/usr/bin/env python3
"""Precompute the log-mel features of a manifest; training takes them with --feature-store.

    ./local/compute_features.py --manifest data/all/cuts_train.jsonl --output-dir data/features \\
        --num-jobs 8

With --dask-scheduler local or tcp://... the workers of a Dask cluster do it.
"""

import argparse
from pathlib import Path

from captionstew.data.features.fbank import BACKENDS, FbankConfig
from captionstew.data.features.shards import build_feature_store_in_shares
from captionstew.data.features.store import MAX_GB
from captionstew.data.manifests.cuts import open_cuts
from captionstew.errors import run_main


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--num-jobs", type=int, default=1)
    parser.add_argument("--dask-scheduler", help="tcp://... of a cluster, or local")
    parser.add_argument("--fbank-backend", choices=BACKENDS, default="lhotse")
    parser.add_argument("--cuts-per-share", type=int, default=500)
    parser.add_argument(
        "--max-gb", type=float, default=MAX_GB, help="a store that would be larger is refused"
    )
    args = parser.parse_args()
    store = build_feature_store_in_shares(
        args.output_dir,
        open_cuts(args.manifest),
        FbankConfig(backend=args.fbank_backend),
        cuts_per_share=args.cuts_per_share,
        num_jobs=args.num_jobs,
        dask_scheduler=args.dask_scheduler or None,
        max_gb=args.max_gb,
    )
    print(f"{len(store)} clips in {store.folder}")


if __name__ == "__main__":
    run_main(main)
