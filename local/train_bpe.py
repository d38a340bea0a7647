#!/usr/bin/env python3
"""Trains a BPE on the captions of a manifest, so that nothing has to be downloaded.

    python local/train_bpe.py --manifest data/mini/cuts_train.jsonl --output data/mini/bpe.model \\
        --vocab-size 2000

The result is a sentencepiece model with BART's ids (<s> 0, <pad> 1, </s> 2, <unk> 3) and a <mask>.
A small corpus gives fewer pieces than asked for. Where the captions have more kinds of characters
than the pieces can hold, the rare ones are written as bytes (--byte-fallback).
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from captionstew.data.manifests.cuts import open_cuts
from captionstew.data.manifests.index import IndexedCuts
from captionstew.data.tokenizer import (
    SentencePieceTokenizer,
    TooManyCharacters,
    train_sentencepiece,
    train_with_bytes,
)
from captionstew.errors import run_main
from captionstew.files import atomic_write


class Captions:
    """The captions of all clips, as often as they are asked for."""

    def __init__(self, cuts: IndexedCuts) -> None:
        self.cuts = cuts

    def __iter__(self) -> Iterator[str]:
        for cut in self.cuts:
            yield from cut.supervisions[0].custom["captions"]


def with_bytes(captions: Captions, args: argparse.Namespace) -> bytes:
    model, kept, kinds = train_with_bytes(captions, args.vocab_size, args.character_coverage)
    print(
        f"{kept} of {kinds} kinds of characters are pieces, all others are written as bytes;"
        " a larger --vocab-size keeps more"
    )
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--manifest", type=Path, required=True, help="cuts whose captions to train on"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="sentencepiece model file to write"
    )
    parser.add_argument("--vocab-size", type=int, default=2000, help="pieces at most")
    parser.add_argument(
        "--character-coverage", type=float, default=0.9995, help="share of the text's characters"
    )
    parser.add_argument(
        "--byte-fallback",
        choices=("auto", "true", "false"),
        default="auto",
        help="write rare characters as bytes (auto: where the pieces cannot hold all of them)",
    )
    args = parser.parse_args()
    if not 0.98 <= args.character_coverage <= 1:
        parser.error(f"--character-coverage {args.character_coverage} is not between 0.98 and 1")
    cuts = open_cuts(args.manifest)
    captions = Captions(cuts)
    try:
        if args.byte_fallback == "true":
            model = with_bytes(captions, args)
        else:
            model = train_sentencepiece(captions, args.vocab_size, args.character_coverage)
    except TooManyCharacters:
        if args.byte_fallback == "false":
            raise
        model = with_bytes(captions, args)
    with atomic_write(args.output) as file:
        file.write(model)
    print(
        f"wrote {args.output}: {SentencePieceTokenizer(model).vocab_size} pieces from {len(cuts)}"
        " clips"
    )


if __name__ == "__main__":
    run_main(main)
