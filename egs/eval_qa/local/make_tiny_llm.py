#!/usr/bin/env python3
"""Makes a small language model for trying the recipe out where there is no real one.

    ./local/make_tiny_llm.py --manifest data/mini/cuts_train.jsonl --output-dir exp/tiny_llm

It learns, from the questions of the manifest with the answers written where the audio will be, to
read an answer out of that place. Three minutes on one core; a second run does nothing. Its folder
is what --llm takes.
"""

import argparse
import json
import logging
from dataclasses import asdict
from pathlib import Path

from captionstew.data.batches.questions import read_items
from captionstew.data.manifests.cuts import open_cuts
from captionstew.errors import run_main
from captionstew.files import write_json
from captionstew.models.tiny_language_model import (
    TextQuestion,
    TinySettings,
    make_tiny_language_model,
)

DEFAULTS = TinySettings()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--manifest", type=Path, required=True, help="questions to learn the format from"
    )
    parser.add_argument("--output-dir", type=Path, required=True, help="folder of the model")
    parser.add_argument(
        "--hidden-dim", type=int, default=DEFAULTS.hidden_dim, help="channels, a multiple of 32"
    )
    parser.add_argument(
        "--num-layers", type=int, default=DEFAULTS.num_layers, help="transformer layers"
    )
    parser.add_argument("--num-steps", type=int, default=DEFAULTS.num_steps, help="training steps")
    parser.add_argument("--seed", type=int, default=DEFAULTS.seed, help="of weights and batches")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = TinySettings(
        hidden_dim=args.hidden_dim,
        num_layers=args.num_layers,
        num_steps=args.num_steps,
        seed=args.seed,
    )
    cuts = open_cuts(args.manifest)
    made_from = {"manifest": cuts.sha256, "settings": asdict(settings)}
    marker = args.output_dir / "made_from.done"
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == made_from:
        print(f"{args.output_dir}: made before; remove {marker} to make it again")
        return
    questions = [
        TextQuestion(item.answer, item.question, item.choices, item.answer)
        for item in read_items(cuts)
    ]
    marker.unlink(missing_ok=True)
    loss = make_tiny_language_model(questions, args.output_dir, settings)
    write_json(marker, made_from)
    print(f"wrote {args.output_dir}: loss {loss:.3f} per answer token on text")


if __name__ == "__main__":
    run_main(main)
