#!/usr/bin/env python3
"""Find and decode the audio of every clip: coverage.md, missing.txt, broken.txt, checked.parquet.

./local/check_audio.py --data-dir data --num-jobs 8
./local/check_audio.py --data-dir data --dask-scheduler tcp://head:8786
"""

import argparse
from pathlib import Path

import pyarrow.parquet as pq

from captionstew.corpora.build.evaluation_audio import SCHEMA
from captionstew.corpora.build.evaluation_keys import TEST_SPLITS
from captionstew.corpora.build.leakage import MODES
from captionstew.data.audio import MAX_DURATION
from captionstew.data.tables.audio_check import (
    CLIPS_PER_SHARE,
    check_audio,
    coverage_as_markdown,
    fingerprints,
)
from captionstew.data.tables.caption_table import write_rows
from captionstew.errors import run_main


def listed_audio(table: Path, folder: Path, mode: str) -> Path:
    """The evaluation clips whose lists a mode applies."""
    rows = pq.read_table(table).to_pylist()
    applied = (row for row in rows if mode == "strict" or row["list"].split(":")[1] in TEST_SPLITS)
    write_rows(folder / "evaluation.parquet", SCHEMA, applied)
    return folder / "evaluation.parquet"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        required=True,
        help="has clips.parquet and evaluation_audio.parquet; receives audio_check/",
    )
    parser.add_argument("--max-duration", type=float, default=MAX_DURATION, help="seconds")
    parser.add_argument("--num-jobs", type=int, default=1)
    parser.add_argument("--dask-scheduler", help="tcp://... of a cluster, or local")
    parser.add_argument("--clips-per-share", type=int, default=CLIPS_PER_SHARE)
    parser.add_argument(
        "--leakage", choices=MODES, default="strict", help="evaluation lists whose audio counts"
    )
    args = parser.parse_args()
    folder = args.data_dir / "audio_check"
    held_out = fingerprints(
        listed_audio(args.data_dir / "evaluation_audio.parquet", folder, args.leakage),
        folder / "evaluation",
        args.num_jobs,
        args.dask_scheduler or None,
    )
    table = check_audio(
        args.data_dir / "clips.parquet",
        folder,
        max_duration=args.max_duration,
        num_jobs=args.num_jobs,
        dask_scheduler=args.dask_scheduler or None,
        clips_per_share=args.clips_per_share,
        held_out=held_out,
    )
    print(coverage_as_markdown(table))


if __name__ == "__main__":
    run_main(main)
