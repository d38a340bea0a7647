"""Time and memory of the corpus programs at full size: leakage filter, consolidation, duration
rule, subsets.

    python benchmarks/corpus.py --work-dir scale                    # 1M and 10.7M captions
    python benchmarks/corpus.py --work-dir scale --sizes 1000000

Tables are made once per size by benchmarks/make_scale_tables.py (not timed) and kept. Each size
runs in a fresh process.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path

from captionstew.corpora.build.consolidate import consolidate_short
from captionstew.corpora.build.corpus_list import read_corpora
from captionstew.corpora.build.leakage import filter_tables
from captionstew.corpora.build.subsets import add_subset_ranks
from captionstew.data.tables.database import MEMORY_GB, connect

GENERATOR = Path(__file__).resolve().with_name("make_scale_tables.py")


def run_stages(folder: Path, memory_gb: float, threads: int) -> dict:
    """Run the timed stages on the tables in `folder`; seconds per stage, peak memory (GB),
    counts.
    """
    seconds = {}

    def timed(name: str, start: float) -> float:
        now = time.perf_counter()
        seconds[name] = now - start
        return now

    clock = time.perf_counter()
    with connect(folder, memory_gb, threads) as connection:
        report = filter_tables(
            connection,
            read_corpora(folder / "corpora.csv"),
            folder / "tables",
            folder / "evaluation_keys.parquet",
            folder / "filtered",
        )
        clock = timed("leakage filter", clock)
        tables = sorted((folder / "filtered").glob("*.parquet"))
        rule = consolidate_short(
            connection, tables, folder / "audioset_starts.parquet", folder / "short.parquet"
        )
        clock = timed("consolidation", clock)
    strata = add_subset_ranks(folder / "short.parquet", folder / "clips.parquet")
    timed("subsets", clock)
    return {
        "captions": report["total"]["captions"],
        "clips": rule["clips"],
        "kept": rule["kept"],
        "strata": len(strata),
        "seconds": seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 10_700_000])
    parser.add_argument("--memory-gb", type=float, default=MEMORY_GB, help="limit of DuckDB alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps(run_stages(args.run, args.memory_gb, args.threads)))
        return
    results = []
    for size in args.sizes:
        folder = args.work_dir / str(size)
        if not (folder / "corpora.csv").is_file():
            subprocess.run(
                [sys.executable, GENERATOR, "--output-dir", folder, "--num-captions", str(size)],
                check=True,
            )
        command = [sys.executable, __file__, "--work-dir", args.work_dir, "--run", folder]
        command += ["--memory-gb", str(args.memory_gb), "--threads", str(args.threads)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        results.append(json.loads(output.splitlines()[-1]))
        result = results[-1]
        stages = ", ".join(f"{name} {value:.1f} s" for name, value in result["seconds"].items())
        print(
            f"{result['captions']} captions, {result['clips']} clips:"
            f" {sum(result['seconds'].values()):.1f} s",
            end=" ",
        )
        print(f"({stages}); peak memory {result['peak_gb']:.2f} GB")
    if len(results) > 1:
        small, large = results[0], results[-1]
        growth = sum(large["seconds"].values()) / sum(small["seconds"].values())
        n, m = small["captions"], large["captions"]
        print(
            f"time grew {growth:.2f} times; n log n grows {m * math.log(m) / (n * math.log(n)):.2f}"
            " times"
        )


if __name__ == "__main__":
    main()
