"""How long reading a clip takes, by format; or how much longer than with another copy of the code.

    python benchmarks/reading.py
    git worktree add ../before <commit> && python benchmarks/reading.py --against ../before

With `--against`, two processes read the same 16 kHz FLAC file in turns, one with each copy of the
code. Prints medians, asserts nothing.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from captionstew.data.audio import read_audio

READER = """
import sys, time
from captionstew.data.audio import read_audio
for line in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(line)):
        read_audio(sys.argv[1])
    print((time.perf_counter() - start) / int(line), flush=True)
"""
FORMATS = ("a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the clip")
    parser.add_argument("--rounds", type=int, default=300, help="measurements of each copy")
    parser.add_argument("--reads", type=int, default=10, help="reads in a measurement")
    parser.add_argument("--against", type=Path, help="root of another copy of the code")
    parser.add_argument("files", nargs="*", type=Path, help="files to read instead of noise")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = args.files or write_noise(Path(folder), args.seconds, args.against is not None)
        for file in files:
            if args.against is None:
                print(f"{file.name}: {1e6 * alone(file, args):.0f} us")
            else:
                other, own = in_turns(file, args)
                print(
                    f"{file.name}: {1e6 * other:.0f} us there, {1e6 * own:.0f} us here, ratio"
                    f" {own / other:.3f}"
                )


def write_noise(folder: Path, seconds: float, flac_alone: bool) -> list[Path]:
    files = [folder / name for name in (("a.flac",) if flac_alone else FORMATS)]
    noise = 0.05 * np.random.default_rng(0).standard_normal(round(16000 * seconds))
    for file in files:
        opus = file.suffix == ".opus"
        soundfile.write(
            file, noise, 16000, "OPUS" if opus else None, format="OGG" if opus else None
        )
    return files


def alone(file: Path, args: argparse.Namespace) -> float:
    times = []
    for _ in range(args.rounds * args.reads):
        start = time.perf_counter()
        read_audio(file)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def in_turns(file: Path, args: argparse.Namespace) -> tuple[float, float]:
    """Median seconds of a read with the other copy and with this one."""
    trees = (args.against, Path(__file__).parents[1])
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(file.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(tree.absolute())},
            cwd=tree,
        )
        for tree in trees
    ]

    def ask(reader: subprocess.Popen) -> float:
        assert reader.stdin is not None and reader.stdout is not None
        print(args.reads, file=reader.stdin, flush=True)
        return float(reader.stdout.readline())

    for reader in readers:
        ask(reader)
    times: list[list[float]] = [[], []]
    for number in range(args.rounds):
        for index in (0, 1) if number % 2 else (1, 0):
            times[index].append(ask(readers[index]))
    for reader in readers:
        reader.kill()
    return statistics.median(times[0]), statistics.median(times[1])


if __name__ == "__main__":
    main()
