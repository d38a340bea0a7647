#!/usr/bin/env python3
"""Features of a manifest in one memory-mapped file, for small corpora that are trained on for many
epochs.

    python local/store_features.py --manifest data/mine/cuts_train.jsonl \\
        --output-dir data/mine/features --num-jobs 8

Prints the store's folder last and lets OUTPUT_DIR/current point to it; --feature-store of the
training programs takes either. Ten million clips need no store: features on the fly cost about as
much as reading the audio.
"""

import argparse
import os
import secrets
from pathlib import Path

from captionstew.data.features.fbank import BACKENDS, FbankConfig
from captionstew.data.features.store import MAX_GB, build_feature_store
from captionstew.data.manifests.cuts import open_cuts
from captionstew.errors import run_main
from captionstew.files import remove_leftovers


def point_to(folder: Path, link: Path) -> None:
    """Makes `link`, beside `folder`, a link to it; a reader finds the old one or the new one."""
    remove_leftovers(link)
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(4)}.tmp")
    temporary.symlink_to(folder.name)
    os.replace(temporary, link)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, required=True, help="cuts to extract features of")
    parser.add_argument(
        "--output-dir", type=Path, required=True, help="the store is made below this folder"
    )
    parser.add_argument("--num-jobs", type=int, default=2, help="processes")
    parser.add_argument(
        "--fbank-backend", default="lhotse", choices=BACKENDS, help="feature extractor"
    )
    parser.add_argument(
        "--speeds", type=float, nargs="*", default=[1.0], help="speed factors to store"
    )
    parser.add_argument(
        "--max-gb", type=float, default=MAX_GB, help="a store that would be larger is refused"
    )
    args = parser.parse_args()
    config = FbankConfig(backend=args.fbank_backend)
    store = build_feature_store(
        args.output_dir,
        open_cuts(args.manifest),
        config,
        speeds=tuple(args.speeds),
        num_jobs=args.num_jobs,
        max_gb=args.max_gb,
    )
    point_to(store.folder, args.output_dir / "current")
    print(store.folder)


if __name__ == "__main__":
    run_main(main)
