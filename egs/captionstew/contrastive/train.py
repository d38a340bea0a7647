#!/usr/bin/env python3
"""Contrastive audio-language pretraining (paper equation 1).

At paper scale, from scratch (600k steps on 8 GPUs, 640 s of audio each):

    ./train.py --world-size 8 --manifest-dir data/all --exp-dir exp/contrastive \\
        --encoder-preset captionstew \\
        --text-tower bert-base --tokenizer facebook/bart-base --max-steps 600000 \\
        --num-epochs 1000 --use-bf16 true

On two CPU cores, with the mini corpus (prepare.sh at the top of the repository makes it):

    ./train.py --manifest-dir ../../../data/mini --exp-dir exp/contrastive --encoder-preset mini \\
        --text-tower tiny \\
        --tokenizer ../../../data/mini/bpe.model --max-duration 100 --ref-duration 2 \\
        --lr-batches 100 \\
        --lr-epochs 1000 --warm-step 100 --num-epochs 24
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
from captionstew.evaluation.retrieval import embed_clips, retrieval_recalls
from captionstew.flags import flag, free_flag, parse_flags
from captionstew.models.contrastive import ContrastiveModel, contrastive_losses
from captionstew.models.initialise import initialisation_line, initialise_encoder
from captionstew.models.losses import Losses
from captionstew.models.text_tower import ARCHITECTURES, build_text_tower
from captionstew.training.flags import (
    ContrastiveFlags,
    DataFlags,
    EncoderFlags,
    InitFlags,
    TrainingFlags,
    refuse_accumulation,
)
from captionstew.training.launch import launch_training
from captionstew.training.loop import train
from zipformer import Zipformer


@dataclass(frozen=True)
class Flags(TrainingFlags, DataFlags, EncoderFlags, InitFlags, ContrastiveFlags):
    tokenizer: str = free_flag(
        "", "a sentencepiece .model file, a tokenizer folder, or a name on the Hub"
    )
    text_tower: str = flag(
        "bert-base",
        "size of the text encoder, unless --init-text brings one",
        tuple(ARCHITECTURES),
        only_with="init_text=",
    )

    def check(self) -> None:
        if not self.tokenizer and not self.init_text:
            raise ValueError(
                "--tokenizer is needed: train one with local/train_bpe.py, or name BART's"
            )
        refuse_accumulation(self)
        if self.tokenizer and self.init_text:
            raise ValueError("--init-text brings its own tokenizer: leave out --tokenizer")


class ContrastiveTask:
    """Symmetric InfoNCE over the clips of all processes."""

    def __init__(
        self, flags: Flags, tokenizer: Tokenizer, model: ContrastiveModel[Zipformer]
    ) -> None:
        self.flags = flags
        self.tokenizer = tokenizer
        self.config = {
            "task": "contrastive",
            "preset": flags.encoder_preset,
            "encoder": flags.encoder_config().to_dict(),
            "text_tower": model.text_tower.to_dict(),
            "embedding_dim": flags.embedding_dim,
            "temperature": flags.temperature,
            "max_caption_tokens": flags.max_caption_tokens,
            "tokenizer": tokenizer.to_dict(),
        }

    def losses(self, model: nn.Module, batch: Batch, device: torch.device) -> Losses:
        ignore = self.flags.train_duplicates == "ignore"
        return contrastive_losses(
            model, batch, self.tokenizer, self.flags.max_caption_tokens, ignore, device
        )

    def validate(
        self, model: ContrastiveModel[Zipformer], batches: Iterable[Batch], device: torch.device
    ) -> dict[str, float]:
        clips = embed_clips(model, self.tokenizer, batches, device, self.flags.max_caption_tokens)
        return retrieval_recalls(clips, self.flags.duplicate_captions)


def initial_model(flags: Flags, tokenizer: Tokenizer) -> ContrastiveModel[Zipformer]:
    """Random weights, but for what --init-encoder and --init-text bring."""
    encoder = Zipformer(flags.encoder_config())
    tower = build_text_tower(
        flags.init_text or flags.text_tower, tokenizer.vocab_size, tokenizer.pad_id
    )
    if flags.max_caption_tokens > tower.max_tokens:
        raise ValueError(
            f"--max-caption-tokens must be at most {tower.max_tokens} with this text encoder"
        )
    tower.lr_scale = flags.text_lr_scale
    model = ContrastiveModel(encoder, tower, flags.embedding_dim, flags.temperature)
    if flags.init_encoder:
        initialise_encoder(encoder, flags.init_encoder)
    sources = {"encoder": flags.init_encoder, "text_tower": flags.init_text}
    logging.info(
        initialisation_line(model, {part: str(path) for part, path in sources.items() if path})
    )
    return model


def run(rank: Rank, flags: Flags) -> None:
    tokenizer = load_tokenizer(
        flags.tokenizer or flags.init_text, "--tokenizer" if flags.tokenizer else "--init-text"
    )
    model = initial_model(flags, tokenizer)
    task = ContrastiveTask(flags, tokenizer, model)
    data = TrainingBatches(flags, rank.rank, rank.world_size)
    task.config |= {"fbank": data.fbank.to_dict(), "coverage": data.coverage}
    train(model, task, data, flags, rank)


def main() -> None:
    launch_training(run, parse_flags(Flags, __doc__))


if __name__ == "__main__":
    run_main(main)
