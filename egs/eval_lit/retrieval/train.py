#!/usr/bin/env python3
"""Retrieval on frozen audio (LiT): a text encoder and two projections learn to meet a frozen audio
encoder.

With the paper's text encoder (section 4.2, Table 3b):

    ./train.py --encoder exp/contrastive/pretrained.pt --manifest-dir data/audiocaps \\
        --exp-dir exp/lit/audiocaps \\
        --text-tower roberta-base --use-bf16 true

On two CPU cores, with a text encoder from scratch:

    ./train.py --encoder exp/contrastive/pretrained.pt --manifest-dir data/mini \\
        --exp-dir exp/lit_retrieval/mini \\
        --text-tower tiny --tokenizer data/mini/bpe.model --max-duration 200 --lr-batches 200 \\
        --lr-epochs 1000 \\
        --warm-step 50 --num-epochs 10
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from captionstew.data.batches.dataset import Batch
from captionstew.data.tokenizer import Tokenizer, load_tokenizer
from captionstew.distributed import Rank
from captionstew.errors import run_main
from captionstew.evaluation.frames.batches import FrameBatches
from captionstew.evaluation.retrieval import embed_clips, retrieval_recalls
from captionstew.flags import fixed, flag, free_flag, parse_flags
from captionstew.models.contrastive import ContrastiveModel, contrastive_losses
from captionstew.models.encoders.base import FrozenEncoder
from captionstew.models.encoders.load import load_encoder
from captionstew.models.lit import FrozenFrames, log_parameters
from captionstew.models.losses import Losses
from captionstew.models.text_tower import ARCHITECTURES, build_text_tower
from captionstew.training.flags import (
    ContrastiveFlags,
    FrozenFlags,
    TrainingFlags,
    refuse_accumulation,
)
from captionstew.training.launch import launch_training
from captionstew.training.loop import train


@dataclass(frozen=True)
class Flags(TrainingFlags, FrozenFlags, ContrastiveFlags):
    ref_duration: float = fixed(600.0)  # no scheduled module is trained
    base_lr: float = free_flag(
        0.01, "ScaledAdam's base learning rate, less than for models that start from nothing"
    )
    text_tower: str = flag(
        "roberta-base", "folder or name of a pretrained text encoder; tiny, small: from scratch"
    )
    tokenizer: str = free_flag(
        "", "tokenizer of a text encoder from scratch (a pretrained one brings its own)"
    )

    def check(self) -> None:
        if not self.tokenizer and self.text_tower in ARCHITECTURES:
            raise ValueError(
                "--tokenizer is needed: a text encoder from scratch has none of its own"
            )
        refuse_accumulation(self)


class RetrievalTask:
    """Symmetric InfoNCE between frozen audio and a text encoder that learns."""

    def __init__(
        self,
        flags: Flags,
        encoder: FrozenEncoder,
        model: ContrastiveModel[FrozenFrames],
        tokenizer: Tokenizer,
    ) -> None:
        self.flags = flags
        self.tokenizer = tokenizer
        self.config = {
            "task": "lit_retrieval",
            "audio_encoder": encoder.description,
            "frame_dim": encoder.dim,
            "text_tower": model.text_tower.to_dict(),
            "text_name": flags.text_tower,
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
        self, model: ContrastiveModel[FrozenFrames], batches: Iterable[Batch], device: torch.device
    ) -> dict[str, float]:
        clips = embed_clips(model, self.tokenizer, batches, device, self.flags.max_caption_tokens)
        return retrieval_recalls(clips, self.flags.duplicate_captions)


def run(rank: Rank, flags: Flags) -> None:
    encoder = load_encoder(flags.encoder, rank.device)
    tokenizer = load_tokenizer(flags.tokenizer or flags.text_tower)
    tower = build_text_tower(flags.text_tower, tokenizer.vocab_size, tokenizer.pad_id)
    if flags.max_caption_tokens > tower.max_tokens:
        raise ValueError(
            f"--max-caption-tokens must be at most {tower.max_tokens} with this text encoder"
        )
    data = FrameBatches(encoder, flags, rank)
    frames = FrozenFrames(encoder.dim, *data.channel_statistics())
    tower.lr_scale = flags.text_lr_scale
    model = ContrastiveModel(frames, tower, flags.embedding_dim, flags.temperature)
    log_parameters(model, encoder)
    task = RetrievalTask(flags, encoder, model, tokenizer)
    task.config |= {"coverage": data.coverage, "num_train": data.num_train}
    train(model, task, data, flags, rank)


def main() -> None:
    launch_training(run, parse_flags(Flags, __doc__))


if __name__ == "__main__":
    run_main(main)
