"""How long the doors take to open, beside `import torch` in the same run; prints, asserts nothing.

    python benchmarks/imports.py --checkpoint exp/contrastive/pretrained.pt

Every command is a process of its own; they take turns, and the ratio is the median over the turns.
"""

import argparse
import subprocess
import sys
import time
from statistics import median

COMMANDS = {
    "import torch": "import torch",
    "import captionstew": "import captionstew",
    "import zipformer": "import zipformer",
    "load_encoder": "import captionstew; captionstew.load_encoder({checkpoint!r})",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="a checkpoint of ours")
    parser.add_argument("--repeats", type=int, default=7, help="turns; one more does not count")
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for repeat in range(-1, args.repeats):
        for name, code in COMMANDS.items():
            began = time.perf_counter()
            command = [sys.executable, "-c", code.format(checkpoint=args.checkpoint)]
            subprocess.run(command, check=True)
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - began)
    for name, values in seconds.items():
        ratio = median(a / b for a, b in zip(values, seconds["import torch"], strict=True))
        print(f"{name:20s} {median(values):6.2f} s   {ratio:5.2f} x import torch")


if __name__ == "__main__":
    main()
