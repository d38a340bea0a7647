"""How long it takes to note what is trained on, and to count evaluation clips among it.

python benchmarks/trained_clips.py --work-dir memory --num-clips 100000
python benchmarks/trained_clips.py --work-dir memory                      # 9.3M: 7 GB of disk
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from captionstew.data.audio import AudioInfo
from captionstew.data.manifests.cuts import cut_row, open_cuts, write_cuts
from captionstew.data.manifests.trained_clips import TrainedClips, read_trained_clips

CAPTION = "a person speaks while wind blows and something rattles in the distance " * 2
EVALUATED = 20_000


def rows(num_clips: int) -> Iterator[dict]:
    """Cuts with keys and fingerprints of their own."""
    info = AudioInfo(10.0, 16_000, 1, 160_000, "")
    for number in range(num_clips):
        labels = {"fingerprint": f"{number:032x}"}
        key = f"yt:{number:011d}:0"
        yield cut_row(key, f"/audio/{number}.flac", info, [CAPTION], ["youtube8m"], labels)


def timed(what: str, work: Callable[[], Any]) -> Any:
    """Prints how long work() takes; returns what it does."""
    start = time.perf_counter()
    found = work()
    print(f"{what:24s} {time.perf_counter() - start:8.2f} s")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--num-clips", type=int, default=9_300_000)
    args = parser.parse_args()
    path = args.work_dir / f"cuts_{args.num_clips}.jsonl"
    if not path.is_file():
        timed("write the manifest", lambda: write_cuts(path, rows(args.num_clips)))
    cuts = timed("open the manifest", lambda: open_cuts(path))
    memory = timed("collect the hashes", lambda: TrainedClips.of(cuts))
    reference = timed("write the file", lambda: memory.write(args.work_dir))
    found = timed("read and check it", lambda: read_trained_clips(args.work_dir, reference))
    timed("join with another", lambda: found.joined(memory))
    evaluated = cuts.select(range(min(EVALUATED, len(cuts))))
    count = timed(f"count {len(evaluated)} clips", lambda: found.count(evaluated))
    size = (args.work_dir / reference["file"]).stat().st_size
    print(f"{args.num_clips} clips, {size / 1e6:.1f} MB, {count['trained']} found again")


if __name__ == "__main__":
    main()
