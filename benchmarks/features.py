"""Features: seconds of audio per second for each step from file to batch. Prints figures, asserts
nothing.

    python benchmarks/features.py --seconds 10 --clips 64 --num-workers 0 2
    python benchmarks/features.py --device cuda --backend kaldifeat

Clips are made-up noise in FLAC files at 44.1 and 16 kHz. Each figure is the median of `--repeats`
runs.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

from captionstew.data.audio import AudioInfo, inspect_audio, read_audio
from captionstew.data.batches.dataset import CaptionDataset
from captionstew.data.batches.loader import make_loader
from captionstew.data.batches.sampling import EpochBatches
from captionstew.data.features.augment import SpecAugment
from captionstew.data.features.fbank import BACKENDS, Fbank, FbankConfig
from captionstew.data.features.store import build_feature_store
from captionstew.data.manifests.cuts import make_cut, open_cuts, write_cuts
from captionstew.data.resampling import resample


class Clock:
    """Prints the median speed of an action on `audio` seconds."""

    def __init__(self, audio: float, repeats: int, device: str) -> None:
        self.audio, self.repeats, self.device = audio, repeats, device

    def __call__(self, label: str, action: Callable[[], object]) -> None:
        action()
        times = []
        for _ in range(self.repeats):
            start = time.perf_counter()
            action()
            if self.device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        print(f"{label:52s} {self.audio / statistics.median(times):10.0f} s of audio per s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument(
        "--num-workers", type=int, nargs="*", default=[0, 2], help="loader processes"
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="for the features alone"
    )
    parser.add_argument("--backend", choices=BACKENDS, default="lhotse")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), args)


def measure(folder: Path, args: argparse.Namespace) -> None:
    clock = Clock(args.clips * args.seconds, args.repeats, args.device)
    fast = [
        write_clip(folder / f"{number}_44100.flac", 44100, args.seconds, number)
        for number in range(args.clips)
    ]
    files = [
        write_clip(folder / f"{number}.flac", 16000, args.seconds, number)
        for number in range(args.clips)
    ]
    samples = [read_audio(path) for path in files]
    tensors = [torch.from_numpy(clip) for clip in samples]
    config = FbankConfig(backend=args.backend)
    fbank = Fbank(config, args.device)
    features, lengths = fbank.extract_batch(tensors)
    clock("check a file (decode to the end)", lambda: [inspect_audio(path) for path in files])
    clock("read 16 kHz FLAC", lambda: [read_audio(path) for path in files])
    clock("read 44.1 kHz FLAC and resample", lambda: [read_audio(path) for path in fast])
    clock(
        "resample 16 kHz by 0.9 (speed)", lambda: [resample(clip, 14400, 16000) for clip in samples]
    )
    clock(
        f"fbank ({args.backend}, {args.device}), clip by clip", lambda: fbank.extract_batch(tensors)
    )
    clock("SpecAugment", lambda: SpecAugment()(features, lengths))

    info = AudioInfo(args.seconds, 16000, 1, round(args.seconds * 16000), "")
    write_cuts(
        folder / "cuts.jsonl",
        [make_cut(path.name, path, info, ["Noise."], ["noise"]) for path in files],
    )
    cuts = open_cuts(folder / "cuts.jsonl")
    batches = EpochBatches(cuts, max(100.0, args.seconds))
    for workers in args.num_workers:
        loader = make_loader(batches, CaptionDataset(config), workers)
        clock(f"loader from files, {workers} workers", lambda loader=loader: list(loader))
    store = build_feature_store(folder / "store", cuts, config, progress=False)
    loader = make_loader(batches, CaptionDataset(config, store=store), 0)
    clock("loader from the feature store, 0 workers", lambda: list(loader))


def write_clip(path: Path, rate: int, seconds: float, seed: int) -> Path:
    noise = 0.05 * np.random.default_rng(seed).standard_normal(round(rate * seconds))
    soundfile.write(path, noise, rate)
    return path


if __name__ == "__main__":
    main()
