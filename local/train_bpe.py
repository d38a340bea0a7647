#!/usr/bin/env python3
"""Trains a BPE on the captions of a manifest, so that nothing has to be downloaded.

    python local/train_bpe.py --manifest data/mini/cuts_train.jsonl --output data/mini/bpe.model \\
        --vocab-size 2000

The result is a sentencepiece model with BART's ids (<s> 0, <pad> 1, </s> 2, <unk> 3) and a <mask>.
A small corpus gives fewer pieces than asked for.
"""

import argparse
from pathlib import Path

from captionstew.data.manifests.cuts import open_cuts
from captionstew.data.tokenizer import SentencePieceTokenizer, train_sentencepiece
from captionstew.errors import run_main
from captionstew.files import atomic_write


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
    args = parser.parse_args()
    if not 0 < args.character_coverage <= 1:
        parser.error(f"--character-coverage {args.character_coverage} is not above 0 and up to 1")
    cuts = open_cuts(args.manifest)
    captions = (caption for cut in cuts for caption in cut.supervisions[0].custom["captions"])
    model = train_sentencepiece(captions, args.vocab_size, args.character_coverage)
    with atomic_write(args.output) as file:
        file.write(model)
    print(
        f"wrote {args.output}: {SentencePieceTokenizer(model).vocab_size} pieces from {len(cuts)}"
        " clips"
    )


if __name__ == "__main__":
    run_main(main)
