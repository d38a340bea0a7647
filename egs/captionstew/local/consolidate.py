#!/usr/bin/env python3
"""Join the filtered tables into one row per clip, and leave out audio announced as longer than 60
s.

./local/consolidate.py --data-dir data
"""

import argparse
from pathlib import Path

from captionstew.corpora.build.consolidate import consolidate_short
from captionstew.data.audio import MAX_DURATION
from captionstew.data.tables.database import MEMORY_GB, connect
from captionstew.errors import run_main
from captionstew.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-dir", type=Path, required=True, help="has filtered/ and audioset_starts.parquet"
    )
    parser.add_argument("--max-duration", type=float, default=MAX_DURATION, help="seconds")
    parser.add_argument("--memory-gb", type=float, default=MEMORY_GB)
    args = parser.parse_args()
    data = args.data_dir
    tables = sorted((data / "filtered").glob("*.parquet"))
    with connect(data / "scratch", args.memory_gb) as connection:
        starts, output = data / "audioset_starts.parquet", data / "clips.parquet"
        report = consolidate_short(connection, tables, starts, output, args.max_duration)
    write_json(data / "consolidation.json", {"max_duration": args.max_duration, **report})
    clips = report["clips"]
    print(
        f"{clips} clips; {clips - report['kept']} longer than {args.max_duration:g} s are left out"
    )


if __name__ == "__main__":
    run_main(main)
