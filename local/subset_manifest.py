#!/usr/bin/env python3
"""The first captions of a training manifest, by a hash of (seed, clip), with the same validation
and test clips.

    python local/subset_manifest.py --manifest-dir data/mini --captions 1000 \\
        --output-dir data/mini/1000

Subsets are nested and keep clips whole: one of N captions is the longest row of clips, in the
hash's order, with at most N captions. CaptionStew's own subsets come from
egs/captionstew/prepare.sh.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np

from captionstew.data.batches.captioned import read_coverage
from captionstew.data.manifests.cuts import open_cuts, write_cuts
from captionstew.errors import run_main
from captionstew.files import write_json
from captionstew.hashing import key_hash


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
    parser.add_argument(
        "--captions", type=int, required=True, help="captions of the subset, at most"
    )
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    if args.output_dir.resolve() == args.manifest_dir.resolve():
        raise ValueError(
            f"--output-dir {args.output_dir} is --manifest-dir: its training manifest would be lost"
        )
    cuts = open_cuts(args.manifest_dir / "cuts_train.jsonl")
    if not len(cuts):
        raise ValueError(f"{cuts.path} has no clips")
    custom = [cut.supervisions[0].custom for cut in cuts]
    order = sorted(range(len(cuts)), key=lambda row: key_hash(custom[row]["audio_key"], args.seed))
    totals = np.cumsum([len(custom[row]["captions"]) for row in order])
    chosen = sorted(order[: int(np.searchsorted(totals, args.captions, side="right"))])
    if not chosen:
        raise ValueError(f"--captions {args.captions}: the first clip alone has {totals[0]}")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for split in ("valid", "test"):
        if (path := args.manifest_dir / f"cuts_{split}.jsonl").is_file():
            write_cuts(args.output_dir / path.name, open_cuts(path))
    if (classes := args.manifest_dir / "classes.json").is_file():
        shutil.copy(classes, args.output_dir)
    report = {"subset": str(args.captions), "of": read_coverage(args.manifest_dir)}
    write_json(args.output_dir / "report.json", report)
    write_cuts(args.output_dir / "cuts_train.jsonl", cuts.select(np.array(chosen)))
    captions = int(totals[len(chosen) - 1])
    print(
        f"{args.output_dir}: {len(chosen)} of {len(cuts)} training clips with {captions} captions"
    )


if __name__ == "__main__":
    run_main(main)
