"""Speed and memory of the encoder beside a plain PyTorch version of it; prints figures, asserts
nothing.

    python benchmarks/encoder.py --preset captionstew --threads 2 --batch-size 4 --seconds 10
    python benchmarks/encoder.py --preset captionstew --device cuda --dtype bfloat16 --batch-size 64

A training step is forward, backward and ScaledAdam with clipping. Both implementations have the
same weights, input and seeds and take turns, so that the ratios hold on a machine whose speed
drifts. Clips are between 80 % and 100 % of `--seconds` long, and seconds of audio are those of the
clips, without padding.
"""

import argparse
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from plain_zipformer import PlainZipformer
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from zipformer import ScaledAdam, Zipformer, ZipformerConfig, get_parameter_groups, set_batch_count
from zipformer.config import PRESETS

IMPLEMENTATIONS = {"ours": Zipformer, "plain": PlainZipformer}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GEMM_SIZE = 2048
PRODUCTS = (
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "conv",
    "linear",
)  # parts of the names of the operators


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    names = list(IMPLEMENTATIONS) if args.implementation == "both" else [args.implementation]
    runs = {name: Run(name, args) for name in names}
    print_setting(args, next(iter(runs.values())))

    flops = count_flops(args)
    peak = gemm_peak(args)
    print(
        f"machine: {peak / 1e9:.0f} GFLOP/s in a product of two {GEMM_SIZE} x {GEMM_SIZE} matrices"
    )
    for mode in ("inference", "training"):
        seconds = interleaved_times({name: getattr(run, mode) for name, run in runs.items()}, args)
        for name, run in runs.items():
            median = statistics.median(seconds[name])
            achieved = flops[mode] * run.audio / median
            memory = peak_memory(name, mode, args)
            share = share_of_products(getattr(run, mode), args)
            print(
                f"{mode:9s} {name:5s}  {run.audio / median:8.1f} s of audio per s  "
                f" {median * 1e3:8.1f} ms   peak memory {memory / 2**20:6.0f} MiB   products and"
                f" convolutions {share:4.0%} of the time   {achieved / 1e9:7.1f} GFLOP/s ="
                f" {achieved / peak:4.0%} of peak"
            )
        if len(runs) == 2:
            ratios = [plain / ours for ours, plain in zip(seconds["ours"], seconds["plain"])]
            print(
                f"{mode:9s} ours is {statistics.median(ratios):.2f} times as fast as plain "
                f"({min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} repeats)"
            )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="captionstew", choices=sorted(PRESETS))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--dtype", default="float32", choices=sorted(DTYPES), help="type inside autocast"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4, help="clips")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the longest clip")
    parser.add_argument("--implementation", default="both", choices=[*IMPLEMENTATIONS, "both"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--batch-count", type=float, default=5000.0, help="point of the training schedules"
    )
    return parser.parse_args()


class Run:
    """One implementation with its input and optimizer; `inference()` and `training()` do one
    batch.
    """

    def __init__(self, name: str, args: argparse.Namespace):
        torch.manual_seed(0)
        self.device, self.dtype = torch.device(args.device), DTYPES[args.dtype]
        config = ZipformerConfig.preset(args.preset)
        state = Zipformer(config).state_dict()
        self.model: nn.Module = IMPLEMENTATIONS[name](config)
        self.model.load_state_dict(state)
        self.model.to(self.device)
        set_batch_count(self.model, args.batch_count)
        self.optimizer = ScaledAdam(get_parameter_groups(self.model, lr=1e-3), clipping_scale=2.0)
        self.features, self.lengths = batch(args)
        self.audio = self.lengths.sum().item() / 100.0  # seconds

    def forward(self) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.model(self.features, self.lengths)[0]

    def inference(self) -> None:
        self.model.eval()
        with torch.no_grad():
            self.forward()

    def training(self) -> None:
        self.model.train()
        frames = self.forward().float()
        frames.square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def batch(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """(B, T, 80) features, like log-mel in mean and deviation, and (B,) lengths in frames."""
    num_frames = round(args.seconds * 100)
    features = torch.randn(args.batch_size, num_frames, 80) * 3.0 - 8.0
    lengths = torch.linspace(num_frames, 0.8 * num_frames, args.batch_size).long()
    for clip, length in zip(features, lengths.tolist()):
        clip[length:] = -15.942385
    return features.to(args.device), lengths


def timed(work: Callable[[], None], device: str, seed: int) -> float:
    """Seconds that one call takes, with all random draws fixed by the seed."""
    torch.manual_seed(seed)
    random.seed(seed)
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved_times(
    work: dict[str, Callable[[], None]], args: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds of each repeat; the implementations take turns, after one round that does not
    count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(-1, args.repeats):
        for name, function in work.items():
            elapsed = timed(function, args.device, repeat + 1)
            if repeat >= 0:
                seconds[name].append(elapsed)
    return seconds


def gemm_peak(args: argparse.Namespace) -> float:
    """FLOP per second of a large square matrix product, the best of ten."""
    a, b = (
        torch.randn(GEMM_SIZE, GEMM_SIZE, device=args.device, dtype=DTYPES[args.dtype])
        for _ in range(2)
    )
    torch.mm(a, b)
    best = min(timed(lambda: torch.mm(a, b), args.device, 0) for _ in range(10))
    return 2.0 * GEMM_SIZE**3 / best


def count_flops(args: argparse.Namespace) -> dict[str, float]:
    """FLOP per second of audio in products and convolutions, without gradient modifiers and
    optimizer.

    The backward counts as two forwards, as usual: torch counts too much for grouped convolutions
    there.
    """
    run = Run("ours", args)
    run.model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run.forward()
    forward = counter.get_total_flops() / run.audio
    print(
        f"model: {forward / 1e9:.2f} GFLOP per second of audio forward, three times that per"
        " training step"
    )
    return {"inference": forward, "training": 3.0 * forward}


def share_of_products(work: Callable[[], None], args: argparse.Namespace) -> float:
    """Share of the time of one call spent inside matrix products and convolutions."""
    on_gpu = args.device == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=activities) as profiler:
        timed(work, args.device, seed=1)
    products = total = 0.0
    for event in profiler.key_averages():
        elapsed = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if on_gpu and not event.key.startswith("aten::"):
            continue
        total += elapsed
        if event.key.startswith("aten::") and any(part in event.key for part in PRODUCTS):
            products += elapsed
    return products / total


def peak_memory(name: str, mode: str, args: argparse.Namespace) -> float:
    """Largest memory in bytes that one call adds to model and optimizer: allocated on a GPU,
    resident on a CPU.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(measure_memory, (name, mode, args))


def measure_memory(name: str, mode: str, args: argparse.Namespace) -> float:
    torch.set_num_threads(args.threads)
    run = Run(name, args)
    if args.device == "cuda":
        getattr(run, mode)()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        getattr(run, mode)()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to the present
    before = resident_memory("VmRSS")
    getattr(run, mode)()
    return resident_memory("VmHWM") - before


def resident_memory(entry: str) -> float:
    """Resident memory of this process in bytes, present (VmRSS) or largest so far (VmHWM); Linux
    only.

    The resource module's figure will not do: a child process inherits its parent's.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024.0 for line in lines if line.startswith(f"{entry}:"))


def print_setting(args: argparse.Namespace, run: Run) -> None:
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    device = (
        torch.cuda.get_device_name() if args.device == "cuda" else f"cpu, {args.threads} threads"
    )
    print(
        f"{args.preset}: {parameters / 1e6:.1f} M parameters, {args.batch_size} clips of up to"
        f" {args.seconds:g} s, {args.dtype}, {device}, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
