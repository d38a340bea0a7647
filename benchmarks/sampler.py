"""The sampler on a made-up manifest: start, speed, padding, resume. Prints figures, asserts
nothing.

    python benchmarks/sampler.py --num-cuts 100000 --max-duration 640 --world-size 8
    python benchmarks/sampler.py --manifest data/mine/cuts_train.jsonl --max-duration 100

`benchmarks/manifest.py` does the same at the full corpus's 9.3 million cuts. Audio is not read.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from manifest import write_manifest
from tqdm import tqdm

from captionstew.data.batches.sampling import EpochBatches
from captionstew.data.manifests.cuts import open_cuts
from captionstew.data.manifests.index import IndexedCuts, index_path

T = TypeVar("T")


def timed(label: str, action: Callable[[], T]) -> T:
    """Runs the action and prints how long it took."""
    clock = time.perf_counter()
    processor = time.process_time()
    result = action()
    seconds, processor = time.perf_counter() - clock, time.process_time() - processor
    print(f"{label:58s} {seconds:9.3f} s, {processor:9.3f} s of processor time")
    return result


def made_up_durations(num_cuts: int) -> np.ndarray:
    """Seconds: 0.5 to 60 with a heavy left half (log-normal around 8 s)."""
    return np.clip(np.random.default_rng(0).lognormal(np.log(8.0), 0.7, num_cuts), 0.5, 60.0).round(
        3
    )


def measure(path: Path, args: argparse.Namespace) -> None:
    if args.manifest is None:
        index_path(path).unlink()
        timed("open without an index (every row is checked)", lambda: open_cuts(path))
    cuts = timed("open with an index", lambda: open_cuts(path))
    batches = timed("build the sampler", lambda: sampler(cuts, args))
    timed("first batch, as positions", lambda: next(batches.positions()))
    clock, processor = time.perf_counter(), time.process_time()
    epoch = list(tqdm(batches.positions(), desc="epoch", leave=False))
    seconds, processor = time.perf_counter() - clock, time.process_time() - processor
    lengths = [cuts.durations[positions].tolist() for positions in epoch]
    padded = sum(len(batch) * max(batch) for batch in lengths)
    print(
        f"{len(cuts)} cuts, {cuts.total_duration / 3600:.1f} h, {batches.num_buckets} buckets, "
        f"{batches.num_segments} segments, {len(lengths)} batches a rank\n"
        f"{len(cuts) / seconds:.0f} cuts/s walked ({len(cuts) / processor:.0f} by processor time), "
        f"{len(lengths) / seconds:.1f} batches/s\n"
        f"{sum(map(sum, lengths)) / padded:.1%} of the padded audio is audio; "
        f"batches fill {padded / len(lengths) / args.max_duration:.1%} of --max-duration"
    )
    for share in (0.01, 0.5, 0.99):
        resumed = sampler(cuts, args)
        resumed.load_state_dict(batches.state_dict(int(share * len(lengths))))
        timed(
            f"resume after {share:.0%} of the epoch, to the next batch",
            lambda resumed=resumed: next(iter(resumed)),
        )


def sampler(cuts: IndexedCuts, args: argparse.Namespace) -> EpochBatches:
    return EpochBatches(
        cuts,
        args.max_duration,
        num_buckets=args.num_buckets,
        world_size=args.world_size,
        segment_size=args.segment_size,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--manifest", type=Path, help="a manifest of your own instead of a made-up one"
    )
    parser.add_argument("--num-cuts", type=int, default=100_000)
    parser.add_argument(
        "--max-duration", type=float, default=640.0, help="seconds a batch and rank"
    )
    parser.add_argument("--num-buckets", type=int, default=30)
    parser.add_argument("--world-size", type=int, default=1)
    parser.add_argument("--segment-size", type=int, default=100_000)
    args = parser.parse_args()
    if args.manifest is not None:
        measure(args.manifest, args)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder) / "cuts.jsonl", made_up_durations(args.num_cuts))
        measure(Path(folder) / "cuts.jsonl", args)


if __name__ == "__main__":
    main()
