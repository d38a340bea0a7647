#!/usr/bin/env python3
"""Manifests of a corpus from its train, validation and test tables, for the clips whose audio is
there.

./local/make_split_manifests.py --data-dir data/musiccaps --num-jobs 8

Reads <data-dir>/tables/<split>.parquet; writes <data-dir>/cuts_<split>.jsonl and report.json (clips
listed, found, missing, broken). What is missing or broken is listed in
<data-dir>/audio_check/<split>/.
"""

import argparse
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captionstew.corpora.build.consolidate import consolidate
from captionstew.corpora.build.subset_manifests import cuts_of
from captionstew.corpora.lit_splits import SPLITS
from captionstew.data.manifests.cuts import write_cuts
from captionstew.data.tables.audio_check import check_audio, coverage_as_markdown
from captionstew.data.tables.caption_table import write_rows
from captionstew.data.tables.database import connect
from captionstew.files import write_json

NO_STARTS = pa.schema([("video", pa.string()), ("start", pa.int64())])


def manifest_of(split: str, data: Path, num_jobs: int) -> dict:
    """Writes one split's manifest; returns its coverage."""
    folder = data / "audio_check" / split
    folder.mkdir(parents=True, exist_ok=True)
    starts = (
        folder / "audioset_starts.parquet"
    )  # one corpus agrees with itself: its own starts are right
    write_rows(starts, NO_STARTS, [])
    with connect(folder / "scratch", memory_gb=2.0) as connection:
        consolidate(
            connection, [data / "tables" / f"{split}.parquet"], starts, folder / "clips.parquet"
        )
    table = check_audio(folder / "clips.parquet", folder, num_jobs=num_jobs)
    if pq.ParquetFile(folder / "checked.parquet").metadata.num_rows == 0:
        raise ValueError(
            f"{split}: none of {table['total']['listed']} clips has audio; see"
            f" {folder / 'missing.txt'}"
        )
    write_cuts(data / f"cuts_{split}.jsonl", cuts_of(folder / "checked.parquet"), progress=True)
    print(f"{split}\n{coverage_as_markdown(table)}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--num-jobs", type=int, default=2)
    args = parser.parse_args()
    try:
        report = {
            split: manifest_of(split, args.data_dir, args.num_jobs) for split in reversed(SPLITS)
        }
    except (OSError, ValueError) as error:
        sys.exit(f"make_split_manifests: {error}")
    write_json(args.data_dir / "report.json", {"coverage": report})


if __name__ == "__main__":
    main()
