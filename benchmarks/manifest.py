"""How fast training starts, runs and resumes on the manifest of the full corpus.

    python benchmarks/manifest.py --work-dir /tmp/manifest                    # 9.3M cuts, 6.5 GB of disk
    python benchmarks/manifest.py --work-dir /tmp/manifest --num-cuts 1000000

The manifest holds made-up cuts of the corpus's lengths and caption sizes (written once, not timed). No audio
is read: this is the sampler's part. Prints the time to the first batch, cuts per second, and the time to
resume in mid-epoch.
"""

import argparse
import hashlib
import json
import resource
import time
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from captionstew.data.audio import AudioInfo
from captionstew.data.cuts import make_cut, open_cuts
from captionstew.data.manifest import write_index
from captionstew.data.sampling import EpochBatches

CAPTION = "a person speaks while wind blows and something rattles in the distance " * 2
LENGTHS = (10.0, 10.0, 10.0, 10.0, 30.0, 4.2, 7.5, 9.98)  # seconds; the mix of the corpus, roughly


def write_manifest(path: Path, num_cuts: int) -> None:
    """Lines of one template cut with other ids and durations, and their index."""
    info = AudioInfo(duration=60.0, sampling_rate=16_000, channels=1, num_samples=960_000, fingerprint="0" * 32)
    cut = make_cut(
        "yt:00000000000:0", "/audio/NUMBER.flac", info, [CAPTION], ["audiosetcaps_youtube8m"], cut_id="NUMBER"
    )
    line = json.dumps(cut.to_dict(), separators=(",", ":"))
    durations = np.resize(np.array(LENGTHS), num_cuts)
    lengths = np.empty(num_cuts, np.int64)
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    templates = {x: line.replace('"duration":60.0,"channel"', f'"duration":{x},"channel"') for x in set(LENGTHS)}
    with open(path, "wb") as stream:
        for number in tqdm(range(num_cuts), desc="manifest", unit="cut", unit_scale=True):
            text = templates[durations[number]].replace("NUMBER", f"{number:011d}").encode() + b"\n"
            stream.write(text)
            digest.update(text)
            lengths[number] = len(text)
    write_index(path, digest.hexdigest(), np.concatenate([[0], np.cumsum(lengths)]), durations)


def measure(path: Path, max_duration: float, num_batches: int) -> None:
    clock = time.perf_counter()
    cuts = open_cuts(path)
    batches = EpochBatches(cuts, max_duration, seed=42)
    stream = iter(batches)
    next(stream)
    print(
        f"{len(cuts)} cuts, {cuts.total_duration / 3600:.0f} h: first batch after {time.perf_counter() - clock:.2f} s"
    )
    clock = time.perf_counter()
    count = sum(len(batch) for batch in islice(stream, num_batches))
    seconds = time.perf_counter() - clock
    print(f"{count / seconds:.0f} cuts/s, {num_batches / seconds:.1f} batches/s over {num_batches} batches")
    middle = batches.expected_batches // 2
    per_segment = max(1, middle // max(1, batches.num_segments // 2))
    state = batches.state_dict(consumed=min(num_batches, per_segment - 1))
    clock = time.perf_counter()
    resumed = EpochBatches(open_cuts(path), max_duration, seed=42)
    resumed.load_state_dict({**state, "segment": batches.num_segments // 2, "consumed": middle})
    next(iter(resumed))
    print(f"resumed in the middle of the epoch after {time.perf_counter() - clock:.2f} s")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--num-cuts", type=int, default=9_300_000)
    parser.add_argument("--max-duration", type=float, default=640.0, help="seconds a batch")
    parser.add_argument("--num-batches", type=int, default=2_000)
    args = parser.parse_args()
    path = args.work_dir / f"cuts_{args.num_cuts}.jsonl"
    if not path.is_file():
        write_manifest(path, args.num_cuts)
    measure(path, args.max_duration, args.num_batches)


if __name__ == "__main__":
    main()
