#!/usr/bin/env python3
"""Find and decode the audio of every clip: coverage.md, missing.txt, broken.txt, checked.parquet.

./local/check_audio.py --data-dir data --num-jobs 8
./local/check_audio.py --data-dir data --dask-scheduler tcp://head:8786
"""

import argparse
from pathlib import Path

from captionstew.data.audio import MAX_DURATION
from captionstew.data.tables.audio_check import CLIPS_PER_SHARE, check_audio, coverage_as_markdown
from captionstew.errors import run_main


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-dir", type=Path, required=True, help="has clips.parquet; receives audio_check/"
    )
    parser.add_argument("--max-duration", type=float, default=MAX_DURATION, help="seconds")
    parser.add_argument("--num-jobs", type=int, default=1)
    parser.add_argument("--dask-scheduler", help="tcp://... of a cluster, or local")
    parser.add_argument("--clips-per-share", type=int, default=CLIPS_PER_SHARE)
    args = parser.parse_args()
    table = check_audio(
        args.data_dir / "clips.parquet",
        args.data_dir / "audio_check",
        max_duration=args.max_duration,
        num_jobs=args.num_jobs,
        dask_scheduler=args.dask_scheduler or None,
        clips_per_share=args.clips_per_share,
    )
    print(coverage_as_markdown(table))


if __name__ == "__main__":
    run_main(main)
