#!/usr/bin/env python3
"""Join the filtered tables into one row per clip, and leave out audio announced as longer than 60
s.

./local/consolidate.py --data-dir data
"""

import argparse
from pathlib import Path

from captionstew.corpora.build.consolidate import apply_duration_rule, consolidate
from captionstew.data.audio import MAX_DURATION
from captionstew.data.tables.database import connect
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
    parser.add_argument("--memory-gb", type=float, default=3.0)
    args = parser.parse_args()
    data = args.data_dir
    tables = sorted((data / "filtered").glob("*.parquet"))
    with connect(data / "scratch", args.memory_gb) as connection:
        clips = consolidate(
            connection, tables, data / "audioset_starts.parquet", data / "consolidated.parquet"
        )
    report = apply_duration_rule(
        data / "consolidated.parquet", data / "clips.parquet", args.max_duration
    )
    write_json(
        data / "consolidation.json", {"clips": clips, "max_duration": args.max_duration, **report}
    )
    print(
        f"{clips} clips; {clips - report['kept']} longer than {args.max_duration:g} s are left out"
    )


if __name__ == "__main__":
    run_main(main)
