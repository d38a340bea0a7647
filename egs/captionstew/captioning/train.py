#!/usr/bin/env python3
"""Captioning pretraining, autoregressive and parallel (paper equations 2 and 3).

At paper scale, from scratch (600k steps on 8 GPUs, 640 s of audio each):

    ./train.py --world-size 8 --manifest-dir data/all --exp-dir exp/captioning \\
        --encoder-preset captionstew \\
        --text-decoder bart-base --tokenizer facebook/bart-base --max-steps 600000 \\
        --num-epochs 1000 --use-bf16 true

On two CPU cores, with the mini corpus (prepare.sh at the top of the repository makes it):

    ./train.py --manifest-dir ../../../data/mini --exp-dir exp/captioning --encoder-preset mini \\
        --text-decoder tiny \\
        --tokenizer ../../../data/mini/bpe.model --max-caption-tokens 40 --max-duration 100 \\
        --ref-duration 2 \\
        --lr-batches 100 --lr-epochs 1000 --warm-step 100 --num-epochs 24
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from captionstew.data.batches.captioned import TrainingBatches
from captionstew.data.batches.dataset import Batch
from captionstew.data.tokenizer import Tokenizer, load_tokenizer
from captionstew.distributed import Rank
from captionstew.errors import run_main
from captionstew.evaluation.captioning import captioning_validation
from captionstew.flags import flag, free_flag, parse_flags
from captionstew.models.captioning import CaptioningModel, captioning_losses
from captionstew.models.initialise import initialisation_line, initialise_encoder
from captionstew.models.losses import Losses
from captionstew.models.text_decoder import ARCHITECTURES, build_text_decoder
from captionstew.training.flags import (
    DataFlags,
    EncoderFlags,
    InitFlags,
    TextFlags,
    TrainingFlags,
)
from captionstew.training.launch import launch_training
from captionstew.training.loop import train
from zipformer import Zipformer


@dataclass(frozen=True)
class Flags(TrainingFlags, DataFlags, EncoderFlags, InitFlags, TextFlags):
    tokenizer: str = free_flag(
        "", "a sentencepiece .model file, a tokenizer folder, or a name on the Hub"
    )
    text_decoder: str = flag(
        "bart-base",
        "size of the decoder, unless --init-text brings a BART",
        tuple(ARCHITECTURES),
        only_with="init_text=",
    )
    parallel_fraction: float = flag(
        0.75, "probability that a clip is decoded in parallel instead of autoregressively"
    )
    valid_captions: int = free_flag(
        100, "validation clips per process that get a greedy caption for ROUGE-L"
    )

    def check(self) -> None:
        if not self.tokenizer and not self.init_text:
            raise ValueError(
                "--tokenizer is needed: train one with local/train_bpe.py, or name BART's"
            )
        if self.tokenizer and self.init_text:
            raise ValueError("--init-text brings its own tokenizer: leave out --tokenizer")
        if not 0.0 <= self.parallel_fraction <= 1.0:
            raise ValueError(
                f"--parallel-fraction is a share between 0 and 1, not {self.parallel_fraction}"
            )


class CaptioningTask:
    """Cross-entropy of captions, each clip autoregressively or in parallel."""

    def __init__(
        self, flags: Flags, tokenizer: Tokenizer, model: CaptioningModel[Zipformer]
    ) -> None:
        self.flags = flags
        self.tokenizer = tokenizer
        self.config = {
            "task": "captioning",
            "preset": flags.encoder_preset,
            "encoder": flags.encoder_config().to_dict(),
            "text_decoder": model.decoder.to_dict(),
            "parallel_fraction": flags.parallel_fraction,
            "max_caption_tokens": flags.max_caption_tokens,
            "tokenizer": tokenizer.to_dict(),
        }

    def losses(self, model: nn.Module, batch: Batch, device: torch.device) -> Losses:
        flags = self.flags
        return captioning_losses(
            model, batch, self.tokenizer, flags.max_caption_tokens, flags.parallel_fraction, device
        )

    def validate(
        self, model: CaptioningModel[Zipformer], batches: Iterable[Batch], device: torch.device
    ) -> dict[str, float]:
        flags = self.flags
        metrics, self.captions = captioning_validation(
            model, batches, self.tokenizer, flags.max_caption_tokens, flags.valid_captions, device
        )
        return metrics

    def samples(self) -> list[tuple[str, str, str]]:
        """A few captions of the validation just done: cut id, what it should be, what it is."""
        rows = list(zip(self.captions.cut_ids, self.captions.references, self.captions.candidates))
        return [(cut_id, texts[0], text) for cut_id, texts, text in rows[:: max(1, len(rows) // 8)]]


def initial_model(flags: Flags, tokenizer: Tokenizer) -> CaptioningModel[Zipformer]:
    """Random weights, but for what --init-encoder and --init-text bring."""
    decoder = build_text_decoder(
        flags.init_text or flags.text_decoder, tokenizer, flags.max_caption_tokens - 1
    )
    decoder.lr_scale = flags.text_lr_scale
    model = CaptioningModel(Zipformer(flags.encoder_config()), decoder)
    if flags.init_encoder:
        initialise_encoder(model.encoder, flags.init_encoder)
    sources = {"encoder": flags.init_encoder, "decoder": flags.init_text}
    logging.info(
        initialisation_line(model, {part: str(path) for part, path in sources.items() if path})
    )
    return model


def run(rank: Rank, flags: Flags) -> None:
    tokenizer = load_tokenizer(
        flags.tokenizer or flags.init_text, "--tokenizer" if flags.tokenizer else "--init-text"
    )
    model = initial_model(flags, tokenizer)
    task = CaptioningTask(flags, tokenizer, model)
    data = TrainingBatches(flags, rank.rank, rank.world_size)
    task.config |= {"fbank": data.fbank.to_dict(), "coverage": data.coverage}
    train(model, task, data, flags, rank)


def main() -> None:
    launch_training(run, parse_flags(Flags, __doc__))


if __name__ == "__main__":
    run_main(main)
