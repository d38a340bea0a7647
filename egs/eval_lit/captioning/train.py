#!/usr/bin/env python3
"""Captioning on frozen audio (LiT): of a pretrained BART decoder only the cross-attention learns.

With the paper's decoder (section 4.2, Table 3b):

    ./train.py --encoder exp/contrastive/pretrained.pt --manifest-dir data/audiocaps \\
        --exp-dir exp/lit/audiocaps \\
        --text-decoder facebook/bart-base --use-bf16 true

On two CPU cores, with the small text models that ../local/make_text_models.py trains on the
captions:

    ./train.py --encoder exp/contrastive/pretrained.pt --manifest-dir data/mini \\
        --exp-dir exp/lit_captioning/mini \\
        --text-decoder exp/text/bart --max-duration 200 --lr-batches 200 --lr-epochs 1000 \\
        --warm-step 50 \\
        --num-epochs 10
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from captionstew.data.batches.dataset import Batch
from captionstew.data.tokenizer import Tokenizer, load_tokenizer
from captionstew.distributed import Rank
from captionstew.errors import run_main
from captionstew.evaluation.captioning import captioning_validation
from captionstew.evaluation.frames.batches import FrameBatches
from captionstew.flags import fixed, flag, free_flag, parse_flags
from captionstew.models.captioning import CaptioningModel, captioning_losses
from captionstew.models.encoders.base import FrozenEncoder
from captionstew.models.encoders.load import load_encoder
from captionstew.models.lit import FrozenFrames, freeze_all_but_cross_attention, log_parameters
from captionstew.models.losses import Losses
from captionstew.models.text_decoder import ARCHITECTURES, build_text_decoder
from captionstew.training.flags import FrozenFlags, TextFlags, TrainingFlags
from captionstew.training.launch import launch_training
from captionstew.training.loop import train


@dataclass(frozen=True)
class Flags(TrainingFlags, FrozenFlags, TextFlags):
    ref_duration: float = fixed(600.0)  # no scheduled module is trained
    base_lr: float = free_flag(
        0.02, "ScaledAdam's base learning rate, less than for models that start from nothing"
    )
    text_decoder: str = flag(
        "facebook/bart-base", "folder or name of a pretrained BART, with its tokenizer"
    )
    valid_captions: int = free_flag(
        100, "validation clips per process that get a greedy caption for ROUGE-L"
    )

    def check(self) -> None:
        if self.text_decoder in ARCHITECTURES:
            raise ValueError(
                f"--text-decoder {self.text_decoder} has random weights, and most of them would"
                " stay so: name a pretrained BART, or make a small one with"
                " local/make_text_models.py"
            )


class CaptioningTask:
    """Cross-entropy of captions, autoregressive, in a decoder that is frozen but for its
    cross-attention.
    """

    def __init__(
        self,
        flags: Flags,
        encoder: FrozenEncoder,
        model: CaptioningModel[FrozenFrames],
        tokenizer: Tokenizer,
    ) -> None:
        self.flags = flags
        self.tokenizer = tokenizer
        self.config = {
            "task": "lit_captioning",
            "audio_encoder": encoder.description,
            "frame_dim": encoder.dim,
            "text_decoder": model.decoder.to_dict(),
            "text_name": flags.text_decoder,
            "max_caption_tokens": flags.max_caption_tokens,
            "tokenizer": tokenizer.to_dict(),
        }

    def losses(self, model: nn.Module, batch: Batch, device: torch.device) -> Losses:
        return captioning_losses(
            model, batch, self.tokenizer, self.flags.max_caption_tokens, 0.0, device
        )

    def validate(
        self, model: CaptioningModel[FrozenFrames], batches: Iterable[Batch], device: torch.device
    ) -> dict[str, float]:
        flags = self.flags
        metrics, _ = captioning_validation(
            model, batches, self.tokenizer, flags.max_caption_tokens, flags.valid_captions, device
        )
        return metrics


def run(rank: Rank, flags: Flags) -> None:
    encoder = load_encoder(flags.encoder, rank.device)
    tokenizer = load_tokenizer(flags.text_decoder, "--text-decoder")
    decoder = build_text_decoder(flags.text_decoder, tokenizer, flags.max_caption_tokens - 1)
    decoder.lr_scale = flags.text_lr_scale
    data = FrameBatches(encoder, flags, rank)
    frames = FrozenFrames(encoder.dim, *data.channel_statistics())
    model = freeze_all_but_cross_attention(CaptioningModel(frames, decoder))
    log_parameters(model, encoder)
    task = CaptioningTask(flags, encoder, model, tokenizer)
    task.config |= {"coverage": data.coverage, "num_train": data.num_train}
    train(model, task, data, flags, rank)


def main() -> None:
    launch_training(run, parse_flags(Flags, __doc__))


if __name__ == "__main__":
    run_main(main)
