#!/usr/bin/env python3
"""Supervised tagging: several classes per clip, binary cross entropy. The encoder is what the -init
systems start from.

On AudioSet (local/prepare_corpus.py audioset writes the manifests), with clips drawn by the inverse
frequency of their classes and noise of MUSAN:

    ./train.py --world-size 8 --manifest-dir data/audioset --exp-dir exp/tagging \\
        --encoder-preset captionstew \\
        --max-duration 640 --num-epochs 80 --lr-epochs 15 --weighted-sampler true \\
        --num-samples 200000 \\
        --enable-musan true --musan-dir download/musan --use-bf16 true

On two CPU cores, with the mini corpus (prepare.sh at the top of the repository makes it):

    ./train.py --manifest-dir ../../../data/mini --exp-dir exp/tagging --encoder-preset mini \\
        --max-duration 100 \\
        --ref-duration 2 --lr-batches 100 --lr-epochs 1000 --warm-step 100 --num-epochs 24
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from captionstew.data.batches.dataset import Batch
from captionstew.data.batches.tagging import TaggingBatches
from captionstew.distributed import Rank
from captionstew.errors import run_main
from captionstew.evaluation.tagging import tag_clips, tagging_metrics
from captionstew.flags import flag, free_flag, parse_flags
from captionstew.models.initialise import initialisation_line, initialise_encoder
from captionstew.models.losses import Losses
from captionstew.models.tagging import build_tagger, tagging_loss
from captionstew.training.flags import DataFlags, EncoderFlags, TrainingFlags
from captionstew.training.launch import launch_training
from captionstew.training.loop import train
from zipformer import AudioTagger


@dataclass(frozen=True)
class Flags(TrainingFlags, DataFlags, EncoderFlags):
    init_encoder: Path | None = flag(None, "checkpoint to start the encoder from, of any objective")
    class_list: Path | None = free_flag(
        None,
        "classes in order, JSON or CSV (default: classes.json of the manifests, or all labels of"
        " the training clips)",
    )
    label_field: str = flag("labels", "entry of a clip's `custom` with its classes, or its class")
    weighted_sampler: bool = flag(
        False, "draw clips by the inverse frequency of their classes, instead of each once"
    )
    num_samples: int = flag(
        0,
        "clips of an epoch with --weighted-sampler (0: as many as there are)",
        only_with="weighted_sampler",
    )
    enable_musan: bool = flag(
        False, "mix noise into half of the training clips, 10 to 20 dB below them"
    )
    musan_dir: Path | None = free_flag(
        None, "folder with MUSAN, or any other recordings of noise", only_with="enable_musan"
    )
    mixup: float = flag(0.0, "share of the training clips that another one is mixed into (0: none)")
    mixup_alpha: float = flag(
        10.0,
        "mixup: both parameters of the beta distribution of a clip's weight",
        only_with="mixup",
    )

    def check(self) -> None:
        if self.enable_musan and self.musan_dir is None:
            raise ValueError("--enable-musan needs --musan-dir, a folder with recordings")
        if self.enable_musan and self.feature_store is not None:
            raise ValueError("--enable-musan mixes waveforms: leave out --feature-store")
        if not (0 <= self.mixup <= 1 and self.mixup_alpha > 0 and self.num_samples >= 0):
            raise ValueError(
                "--mixup lies between 0 and 1, --mixup-alpha above 0, --num-samples not below 0"
            )


class TaggingTask:
    """Binary cross entropy, summed over classes and clips."""

    def __init__(self, flags: Flags, data: TaggingBatches) -> None:
        self.classes, self.label_field = data.classes, flags.label_field
        self.config: dict[str, Any] = {
            "task": "tagging",
            "preset": flags.encoder_preset,
            "encoder": flags.encoder_config().to_dict(),
            "classes": data.classes,
            "label_field": flags.label_field,
            "fbank": data.fbank.to_dict(),
            "coverage": data.coverage,
        }

    def losses(self, model: nn.Module, batch: Batch, device: torch.device) -> Losses:
        logits = model(batch["features"].to(device), batch["feature_lengths"].to(device))
        total = tagging_loss(logits, batch["targets"].to(device))
        return Losses(total, {"loss": total}, {})

    def validate(
        self, model: AudioTagger, batches: Iterable[Batch], device: torch.device
    ) -> dict[str, float]:
        return tagging_metrics(tag_clips(model, batches, self.classes, self.label_field, device))


def run(rank: Rank, flags: Flags) -> None:
    data = TaggingBatches(flags, rank.rank, rank.world_size)
    task = TaggingTask(flags, data)
    model = build_tagger(task.config)
    if flags.init_encoder:
        initialise_encoder(model, flags.init_encoder)
        sources = dict.fromkeys(("encoder_embed", "encoder"), str(flags.init_encoder))
        logging.info(initialisation_line(model, sources))
    train(model, task, data, flags, rank)


def main() -> None:
    launch_training(run, parse_flags(Flags, __doc__))


if __name__ == "__main__":
    run_main(main)
