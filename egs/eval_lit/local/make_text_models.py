#!/usr/bin/env python3
"""Small stand-ins for RoBERTa-base and BART-base, pretrained on captions: for tests and machines
without a network.

./local/make_text_models.py --manifest data/mini/cuts_train.jsonl --output-dir exp/text --steps 1500

writes <output-dir>/roberta (masked words, as RoBERTa) and <output-dir>/bart (restores a caption
with masked words, as BART), each a folder of transformers with its tokenizer, a byte-level BPE with
RoBERTa's special tokens. They know the training captions and nothing else: results with them are no
measure of the protocol.
"""

import argparse
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from tqdm import trange
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from captionstew.data.manifests.cuts import open_cuts
from captionstew.errors import run_main

SPECIAL = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    "<mask>",
]  # ids 0 to 4; BART and RoBERTa agree on the first four
IGNORED = -100  # label of a position without a loss, in transformers
HIDDEN, LAYERS, HEADS, FEEDFORWARD, POSITIONS = 128, 2, 4, 512, 256
MASKED_SHARE = {"roberta": 0.15, "bart": 0.3}


def train_tokenizer(captions: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of the captions."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        captions, vocab_size=vocab_size, special_tokens=SPECIAL, show_progress=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,
        bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip


def new_model(name: str, vocab_size: int) -> PreTrainedModel:
    """A small model of the same class as the real one, with random weights."""
    if name == "roberta":
        return RobertaForMaskedLM(
            RobertaConfig(
                vocab_size=vocab_size, hidden_size=HIDDEN, num_hidden_layers=LAYERS,
                num_attention_heads=HEADS, intermediate_size=FEEDFORWARD,
                max_position_embeddings=POSITIONS + 2, type_vocab_size=1,
            )
        )  # fmt: skip
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=vocab_size, d_model=HIDDEN, encoder_layers=LAYERS, decoder_layers=LAYERS,
            encoder_attention_heads=HEADS, decoder_attention_heads=HEADS,
            encoder_ffn_dim=FEEDFORWARD, decoder_ffn_dim=FEEDFORWARD,
            max_position_embeddings=POSITIONS,
        )
    )  # fmt: skip


def batch_of(
    rows: list[list[int]], tokenizer: PreTrainedTokenizerFast, share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Token rows -> ids (B, L), masked ids (B, L), attention mask (B, L)"""
    rows = [[tokenizer.bos_token_id, *row[: POSITIONS - 2], tokenizer.eos_token_id] for row in rows]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    hidden = (torch.rand(ids.shape) < share) & (ids >= len(SPECIAL))
    return (
        ids,
        ids.masked_fill(hidden, tokenizer.mask_token_id),
        (ids != tokenizer.pad_token_id).long(),
    )


def train(
    model: PreTrainedModel,
    rows: list[list[int]],
    tokenizer: PreTrainedTokenizerFast,
    name: str,
    steps: int,
):
    """Adam on random batches; the learning rate falls linearly to nothing."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=steps)
    model.train()
    for _ in (bar := trange(steps, desc=name)):
        chosen = torch.randint(len(rows), (64,)).tolist()
        ids, masked, attention = batch_of(
            [rows[row] for row in chosen], tokenizer, MASKED_SHARE[name]
        )
        wanted = masked != ids if name == "roberta" else attention.bool()
        loss = model(
            input_ids=masked, attention_mask=attention, labels=ids.masked_fill(~wanted, IGNORED)
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, required=True, help="training cuts with captions")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--vocab-size", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=1500, help="of each model, 64 captions a step")
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    captions = [
        text for cut in open_cuts(args.manifest) for text in cut.supervisions[0].custom["captions"]
    ]
    tokenizer = train_tokenizer(captions, args.vocab_size)
    rows = tokenizer(captions, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    for name in MASKED_SHARE:
        torch.manual_seed(args.seed)
        model = train(new_model(name, len(tokenizer)), rows, tokenizer, name, args.steps)
        for part in (model, tokenizer):
            part.save_pretrained(args.output_dir / name)
        print(
            f"wrote {args.output_dir / name}: {sum(p.numel() for p in model.parameters())}"
            " parameters"
        )


if __name__ == "__main__":
    run_main(main)
