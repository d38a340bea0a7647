#!/usr/bin/env python3
"""Question answering: an adaptor learns to say a frozen encoder's frames in a frozen language
model's embedding space.

At paper scale (paper section 4.2; hours and memory in README.md):

    ./train.py --encoder exp/contrastive/pretrained.pt --llm Qwen/Qwen2.5-7B-Instruct \\
        --allow-download true \\
        --manifest-dir data --exp-dir exp/qa/contrastive --world-size 8 --use-bf16 true \\
        --gradient-checkpointing true

On two CPU cores, with a tiny language model (local/make_tiny_llm.py makes one):

    ./train.py --encoder exp/contrastive/pretrained.pt --llm exp/tiny_llm --manifest-dir data \\
        --exp-dir exp/qa/mini \\
        --max-duration 200 --hidden-dim 128 --num-epochs 10
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from captionstew.data.batches.dataset import Batch
from captionstew.data.batches.questions import QaBatches, qa_items, questions_by_source
from captionstew.data.manifests.cuts import filter_by_duration, open_cuts
from captionstew.distributed import Rank
from captionstew.errors import run_main
from captionstew.evaluation.frames.batches import channel_statistics, kept_frames
from captionstew.evaluation.qa.scores import Reply, validation_metrics
from captionstew.flags import fixed, flag, free_flag, parse_flags
from captionstew.models.encoders.base import FrozenEncoder
from captionstew.models.encoders.load import load_encoder
from captionstew.models.language_model import load_language_model
from captionstew.models.losses import Losses
from captionstew.models.qa import AudioAdaptor, FrozenLanguageModel, build_adaptor, frames_per_token
from captionstew.models.qa_prompt import target_text
from captionstew.training.flags import FrozenFlags, TrainingFlags
from captionstew.training.launch import launch_training
from captionstew.training.loop import train


@dataclass(frozen=True)
class Flags(TrainingFlags, FrozenFlags):
    ref_duration: float = fixed(600.0)  # no scheduled module is trained
    base_lr: float = free_flag(0.02, "ScaledAdam's base learning rate")
    num_epochs: int = free_flag(2, "train up to this epoch, counted from 1")
    max_duration: float = flag(
        200.0, "seconds per batch and process: audio, and text at --token-rate"
    )
    llm: str = free_flag(
        "Qwen/Qwen2.5-7B-Instruct",
        "folder or Hub name of an instruction-tuned causal language model",
    )
    llm_bits: int = flag(16, "16, or 8 or 4 with bitsandbytes", choices=(16, 8, 4))
    allow_download: bool = free_flag(False, "fetch --llm from the Hub if it is not on this machine")
    gradient_checkpointing: bool = free_flag(
        False, "recompute the language model's activations: less memory, more time"
    )
    token_rate: float = flag(5.0, "audio positions per second that the language model sees")
    hidden_dim: int = flag(2048, "size of the adaptor's hidden layer")
    max_answer_tokens: int = flag(256, "longer answers are cut to this many tokens")
    valid_answers: int = free_flag(
        200, "validation questions of each process that are answered, not only scored"
    )

    def check(self) -> None:
        if self.cache != "frames":
            raise ValueError(
                "--cache none: a clip has many questions here, so its frames are always kept"
            )


class QaTask:
    """Cross-entropy of the right answers; the sum over questions of the mean over an answer's
    tokens.
    """

    def __init__(self, flags: Flags, encoder: FrozenEncoder, llm: FrozenLanguageModel) -> None:
        self.flags = flags
        self.llm = llm
        self.replies: list[Reply] = []
        self.config = {
            "task": "qa",
            "audio_encoder": encoder.description,
            "frame_dim": encoder.dim,
            "stack": frames_per_token(encoder.frame_rate, flags.token_rate),
            "token_rate": flags.token_rate,
            "hidden_dim": flags.hidden_dim,
            "llm": llm.description,
            "llm_dim": llm.dim,
            "max_answer_tokens": flags.max_answer_tokens,
        }

    def losses(self, model: nn.Module, batch: Batch, device: torch.device) -> Losses:
        audio, lengths = model(batch["features"].to(device), batch["feature_lengths"].to(device))
        total = self.llm.answer_losses(
            audio, lengths, batch["question_ids"], batch["answer_ids"]
        ).sum()
        return Losses(total, {"loss": total}, {})

    def validate(
        self, model: AudioAdaptor, batches: Iterable[Batch], device: torch.device
    ) -> dict[str, float]:
        flags = self.flags
        metrics, self.replies = validation_metrics(
            model, self.llm, batches, device, flags.max_answer_tokens, flags.valid_answers
        )
        return metrics

    def samples(self) -> list[tuple[str, str, str]]:
        """A few replies of the validation just done: question, right answer, reply."""
        chosen = self.replies[:: max(1, len(self.replies) // 8)]
        return [
            (reply.item, target_text(reply.answer, reply.choices), reply.reply) for reply in chosen
        ]


def run(rank: Rank, flags: Flags) -> None:
    encoder = load_encoder(flags.encoder, rank.device)
    cuts = [
        filter_by_duration(open_cuts(flags.manifest_dir / f"cuts_{split}.jsonl"))
        for split in ("train", "valid")
    ]
    tables = [kept_frames(encoder, split, flags, rank) for split in cuts]
    llm = load_language_model(
        flags.llm,
        rank.device,
        bits=flags.llm_bits,
        checkpointing=flags.gradient_checkpointing,
        allow_download=flags.allow_download,
    )
    task = QaTask(flags, encoder, llm)
    encode = partial(llm.encode, max_answer_tokens=flags.max_answer_tokens)
    train_questions, valid_questions = (
        qa_items(split, table, encode, flags.token_rate, llm.fixed_tokens)
        for split, table in zip(cuts, tables)
    )
    task.config |= {"num_train": questions_by_source(train_questions.items)}
    data = QaBatches(
        train_questions, tables[0], valid_questions, tables[1], flags, rank.rank, rank.world_size
    )
    model = build_adaptor(task.config, llm.embedding_rms())
    model.set_statistics(
        *channel_statistics(encoder, cuts[0], tables[0], flags.max_duration, flags.num_workers)
    )
    trained = sum(p.numel() for p in model.parameters())
    logging.info(
        "%d parameters learn; %d of the language model are frozen", trained, llm.num_parameters
    )
    train(model, task, data, flags, rank)


def main() -> None:
    launch_training(run, parse_flags(Flags, __doc__))


if __name__ == "__main__":
    run_main(main)
