"""How fast training starts, runs and resumes on the manifest of the full corpus.

    python benchmarks/manifest.py --work-dir manifests      # 9.3M cuts, 6.5 GB of disk
    python benchmarks/manifest.py --work-dir manifests --num-cuts 200000

The manifest holds made-up cuts of the corpus's lengths and caption sizes (written once, not timed).
No audio is read: this is the sampler's part. Prints the time to the first batch, the cuts per
second that the sampler gives, the cuts per second that one loader worker reads from the manifest,
and the time to resume in mid-epoch at the end of a segment, where most has to be replayed; each on
the clock and in processor time.
"""

import argparse
import hashlib
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from captionstew.data.audio import AudioInfo
from captionstew.data.batches.sampling import EpochBatches
from captionstew.data.manifests.cuts import make_cut, open_cuts
from captionstew.data.manifests.index import Columns, write_index

CAPTION = "a person speaks while wind blows and something rattles in the distance " * 2
LENGTHS = (10.0, 10.0, 10.0, 10.0, 30.0, 4.2, 7.5, 9.98)  # seconds; the mix of the corpus, roughly
READ_BATCHES = 200


def write_manifest(path: Path, durations: np.ndarray) -> None:
    """One template cut with other ids and durations (N,) in seconds, and the index; nothing is
    checked.
    """
    info = AudioInfo(
        duration=60.0, sampling_rate=16_000, channels=1, num_samples=960_000, fingerprint="0" * 32
    )
    cut = make_cut(
        "yt:00000000000:0",
        "/audio/NUMBER.flac",
        info,
        [CAPTION],
        ["audiosetcaps_youtube8m"],
        cut_id="NUMBER",
    )
    line = json.dumps(cut.to_dict(), separators=(",", ":")) + "\n"
    parts = line.split(
        '"duration":60.0,"channel"'
    )  # the cut's and the supervision's, not the recording's
    lengths = np.empty(len(durations), np.int64)
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as stream:
        for number, duration in enumerate(
            tqdm(durations.tolist(), desc="manifest", unit="cut", unit_scale=True)
        ):
            text = (
                f'"duration":{duration},"channel"'.join(parts)
                .replace("NUMBER", f"{number:011d}")
                .encode()
            )
            stream.write(text)
            digest.update(text)
            lengths[number] = len(text)
    offsets, hashes = np.concatenate([[0], np.cumsum(lengths)]), np.arange(len(durations))
    write_index(path, digest.hexdigest(), Columns(offsets, durations, hashes, hashes))


@contextmanager
def timed() -> Iterator[list[float]]:
    """[seconds on the clock, seconds of processor time], filled in when the block ends."""
    clock, processor = time.perf_counter(), time.process_time()
    seconds: list[float] = []
    yield seconds
    seconds += [time.perf_counter() - clock, time.process_time() - processor]


def measure(
    path: Path, max_duration: float, world_size: int, num_batches: int
) -> dict[str, list[float]]:
    """Seconds (clock, processor) to `start` and `resume`; cuts per second of the `sampler` and of
    `reading`.
    """
    settings = {"max_duration": max_duration, "seed": 42, "world_size": world_size}
    with timed() as start:
        batches = EpochBatches(open_cuts(path), **settings)
        stream = batches.positions()
        first = next(stream)
    with timed() as seconds:
        drawn = list(islice(stream, num_batches))
    walked = world_size * sum(map(len, drawn))  # every rank walks all ranks' cuts
    rates = [walked / each for each in seconds]
    some = [first, *drawn[:READ_BATCHES]]
    with timed() as seconds:
        read = sum(len(batches.cuts.read(positions)) for positions in some)
    reading = [read / each for each in seconds]
    per_segment = int(0.95 * batches.expected_batches / batches.num_segments)
    middle = batches.num_segments // 2
    place = {"segment": middle, "segment_batches": per_segment, "consumed": middle * per_segment}
    with timed() as resume:
        resumed = EpochBatches(open_cuts(path), **settings)
        resumed.load_state_dict(batches.state_dict(consumed=0) | place)
        resumed.cuts.read(next(resumed.positions()))
    return {"start": start, "sampler": rates, "reading": reading, "resume": resume}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--num-cuts", type=int, default=9_300_000)
    parser.add_argument("--max-duration", type=float, default=640.0, help="seconds a batch")
    parser.add_argument("--world-size", type=int, default=1)
    parser.add_argument("--num-batches", type=int, default=2_000)
    args = parser.parse_args()
    path = args.work_dir / f"cuts_{args.num_cuts}.jsonl"
    if not path.is_file():
        write_manifest(path, np.resize(np.array(LENGTHS), args.num_cuts))
    result = measure(path, args.max_duration, args.world_size, args.num_batches)
    print(f"{args.num_cuts} cuts, world size {args.world_size}{'':20s} clock  processor")
    for name, label in (
        ("start", "start, to the first batch"),
        ("resume", "resume in mid-epoch, to the next batch"),
    ):
        print(f"{label:44s} {result[name][0]:9.2f} {result[name][1]:9.2f} s")
    for name, label in (("sampler", "sampler"), ("reading", "reading the rows, one worker")):
        print(f"{label:44s} {result[name][0]:9.0f} {result[name][1]:9.0f} cuts/s")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
