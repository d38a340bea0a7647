#!/usr/bin/env python3
"""One file with averaged weights, which is all that an evaluation needs; and beside it the file
with what was trained on, so that the evaluation can tell.

    ./local/average_checkpoints.py --exp-dir exp/contrastive --epoch 30 --avg 10 \\
        --output exp/contrastive/pretrained.pt

--epoch, --iter, --avg and --use-averaged-model mean what they mean in icefall.
"""

from dataclasses import dataclass
from pathlib import Path

from captionstew.checkpoint import load_checkpoint, save_checkpoint, select_model
from captionstew.data.manifests.trained_clips import ENTRY, copy_trained_clips
from captionstew.errors import run_main
from captionstew.flags import flag, parse_flags

KEPT_ENTRIES = ("config", "flags", "step", "provenance")


@dataclass(frozen=True)
class Flags:
    exp_dir: Path = flag(Path("exp"), "folder with checkpoints")
    epoch: int = flag(10, "average up to epoch-<epoch>.pt", only_with="iter=")
    iter: int = flag(0, "if positive, up to checkpoint-<iter>.pt instead")
    avg: int = flag(
        1, "checkpoints to average, or intervals between checkpoints with --use-averaged-model"
    )
    use_averaged_model: bool = flag(True, "use the running average that training kept")
    output: Path = flag(Path("pretrained.pt"), "checkpoint to write")


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    weights, source = select_model(
        flags.exp_dir, flags.epoch, flags.iter, flags.avg, flags.use_averaged_model
    )
    content = load_checkpoint(source, KEPT_ENTRIES)
    kept = {name: content[name] for name in KEPT_ENTRIES}
    save_checkpoint(flags.output, {"model": weights} | kept)
    copy_trained_clips(source.parent, content["config"].get(ENTRY), flags.output.parent)
    print(f"wrote {flags.output}: up to {source.name}, --avg {flags.avg}, {len(weights)} tensors")


if __name__ == "__main__":
    run_main(main)
