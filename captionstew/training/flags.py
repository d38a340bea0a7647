"""Command-line flags as frozen dataclasses.

A recipe lists the groups it needs and adds its own fields:

    @dataclass(frozen=True)
    class Flags(TrainingFlags, EncoderFlags, DataFlags):
        text_tower: str = flag("small", "small, bert-base, or a folder")

    flags = parse_flags(Flags, __doc__)

Names and meanings follow icefall. Every flag takes a value (`--use-fp16 true`). Contradictions are
refused before any data is opened.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from captionstew.flags import flag, free_flag
from zipformer import ZipformerConfig

PRETRAINED_BATCH_COUNT = (
    100_000.0  # what icefall adds when it fine-tunes; the last schedule ends at 50,000
)


@dataclass(frozen=True)
class BatchFlags:
    """Flags of the clips that a model is trained on, and of their batches."""

    manifest_dir: Path = free_flag(
        Path("data"), "folder with cuts_train.jsonl, cuts_valid.jsonl, cuts_test.jsonl"
    )
    max_duration: float = flag(640.0, "seconds of audio per batch and process")
    num_buckets: int = flag(30, "duration buckets of the sampler")
    num_workers: int = free_flag(
        2, "data-loading processes per rank (0: load in the training process)"
    )
    max_caption_tokens: int = flag(128, "longer captions are cut to this many tokens")
    valid_clips: int = free_flag(2000, "validate on at most this many clips, chosen by a hash")

    def check(self) -> None:
        if not self.max_duration > 0:
            raise ValueError(f"--max-duration must be positive, not {self.max_duration}")
        if self.max_caption_tokens < 3:
            raise ValueError(
                f"--max-caption-tokens counts <s> and </s>: {self.max_caption_tokens} leave no"
                " caption"
            )
        if self.num_buckets < 1 or self.num_workers < 0 or self.valid_clips < 1:
            raise ValueError(
                f"--num-buckets {self.num_buckets}, --num-workers {self.num_workers} and"
                f" --valid-clips {self.valid_clips} must be at least 1, 0 and 1"
            )


@dataclass(frozen=True)
class TrainingFlags(BatchFlags):
    """Flags of the training loop, and of the batches that it takes."""

    exp_dir: Path = free_flag(Path("exp"), "folder for checkpoints, logs and results")
    world_size: int = free_flag(
        1, "number of local processes (GPUs); under torchrun the environment wins"
    )
    master_port: int = free_flag(12354, "port for the processes to meet on")
    num_epochs: int = free_flag(10, "train up to this epoch, counted from 1")
    max_steps: int = free_flag(0, "stop after this many steps in all (0: no limit)")
    start_epoch: int = free_flag(1, "start from the checkpoint of the epoch before this one")
    start_batch: int = free_flag(0, "if positive, start from checkpoint-<start_batch>.pt")
    resume: bool = free_flag(
        False, "continue from the newest complete checkpoint of --exp-dir, if there is one"
    )
    resume_mode: str = free_flag(
        "exact",
        "exact: refuse to resume under other settings; reseed: accept them, and begin the epoch"
        " again with new random numbers",
        choices=("exact", "reseed"),
    )
    base_lr: float = free_flag(0.045, "ScaledAdam's base learning rate")
    lr_batches: float = free_flag(7500, "Eden: steps after which the rate decays noticeably")
    lr_epochs: float = free_flag(3.5, "Eden: epochs after which the rate decays noticeably")
    lr_steps_per_epoch: int = free_flag(
        0,
        "Eden: an epoch of the rates is this many steps, whatever the corpus' size (0: an epoch of"
        " the corpus)",
    )
    warm_step: float = free_flag(
        500, "Eden: steps over which the rate rises from half of its value"
    )
    ref_duration: float = flag(
        600,
        "seconds of audio per step that the encoder's schedules were made for; smaller makes them"
        " run faster",
    )
    clipping_scale: float = free_flag(
        2.0, "gradients are clipped at this multiple of their median norm"
    )
    seed: int = flag(42, "seed of initial values, shuffling and augmentation")
    save_every_n: int = free_flag(4000, "write checkpoint-<step>.pt every this many steps")
    keep_last_k: int = free_flag(30, "keep only this many checkpoint-<step>.pt files")
    average_period: int = flag(
        200, "update the running average of the parameters every this many steps"
    )
    save_every_epochs: int = free_flag(
        1, "write epoch-<number>.pt every this many epochs, counted back from the last"
    )
    valid_interval: int = free_flag(0, "validate every this many steps (0: at each epoch's end)")
    log_interval: int = free_flag(50, "write a progress line every this many steps")
    use_fp16: bool = flag(False, "train in float16 with gradient scaling")
    use_bf16: bool = flag(False, "train in bfloat16")
    device: str = free_flag("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))
    num_threads: int = free_flag(0, "CPU threads per process (0: PyTorch's choice)")
    tensorboard: bool = free_flag(True, "write TensorBoard curves next to the JSON lines")
    wandb: bool = free_flag(
        False, "log to Weights & Biases as well (needs the wandb package and network)"
    )
    accum_grad: int = flag(
        1, "sum the gradients of this many batches per step, where the loss is a sum over clips"
    )
    preflight: bool = free_flag(True, "try the heaviest batches before training starts")
    max_nonfinite: int = free_flag(
        20, "stop after this many batches with a NaN or infinite loss or gradient"
    )

    def first_batch_count(self) -> float:
        """Where the encoder's schedules start: those of a pretrained one (--init-encoder) have
        ended.
        """
        return PRETRAINED_BATCH_COUNT if getattr(self, "init_encoder", None) else 0.0

    def check(self) -> None:
        if self.use_fp16 and self.use_bf16:
            raise ValueError("--use-fp16 and --use-bf16 exclude each other")
        if self.use_fp16 and (self.device == "cpu" or not torch.cuda.is_available()):
            raise ValueError("--use-fp16 needs a GPU; on a CPU use --use-bf16 true or float32")
        if self.resume and (self.start_batch > 0 or self.start_epoch > 1):
            raise ValueError(
                "--resume true picks the checkpoint itself; leave out --start-epoch and"
                " --start-batch"
            )
        if self.start_batch > 0 and self.start_epoch > 1:
            raise ValueError("--start-batch and --start-epoch exclude each other")
        if self.lr_steps_per_epoch < 0:
            raise ValueError(f"--lr-steps-per-epoch must not be below 0: {self.lr_steps_per_epoch}")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"--{name.replace('_', '-')} must be positive, not {getattr(self, name)}"
                )


_POSITIVE = (
    "world_size",
    "num_epochs",
    "base_lr",
    "ref_duration",
    "lr_batches",
    "lr_epochs",
    "save_every_n",
    "save_every_epochs",
    "keep_last_k",
    "average_period",
    "log_interval",
    "accum_grad",
)


def refuse_accumulation(flags: TrainingFlags) -> None:
    """For objectives with negatives. Raises ValueError if --accum-grad is above 1."""
    if flags.accum_grad > 1:
        raise ValueError(
            "--accum-grad does not go with a contrastive loss: each clip's negatives are the other"
            " clips of its batch, so parts of a batch have another loss than the whole; raise"
            " --max-duration or the number of processes"
        )


@dataclass(frozen=True)
class DataFlags(BatchFlags):
    """Flags of features and their augmentation."""

    feature_store: Path | None = free_flag(
        None, "folder of precomputed features (captionstew.data.features.store)"
    )
    fbank_backend: str = flag("lhotse", "feature extractor", choices=("lhotse", "kaldifeat"))
    enable_spec_aug: bool = flag(
        True, "mask bands and frames of the training features (SpecAugment)"
    )
    spec_aug_frame_masks: int = flag(
        10,
        "SpecAugment: time masks per clip, at most 15 % of it in all",
        only_with="enable_spec_aug",
    )
    spec_aug_time_warp: int = flag(80, "SpecAugment: largest time warp in frames (0: none)")
    augment_gain_db: float = flag(
        0.0,
        "random gain of each training clip, up to this many dB either way",
        only_with="enable_spec_aug",
    )
    augment_min_crop: float = flag(
        1.0, "keep a random part of each training clip, at least this share of it"
    )
    augment_max_seconds: float = flag(
        0.0, "keep a random part of at most this length of each training clip (0: all)"
    )
    augment_max_delay: float = flag(
        0.0, "start each training clip with up to this many seconds of silence"
    )
    augment_speeds: str = flag("1.0", "speed factors to choose from for each training clip")

    def check(self) -> None:
        self.speed_factors()

    def speed_factors(self) -> tuple[float, ...]:
        """--augment-speeds as numbers."""
        try:
            speeds = tuple(float(speed) for speed in self.augment_speeds.split(","))
        except ValueError:
            speeds = ()
        if not speeds or not all(speed > 0 for speed in speeds):
            raise ValueError(
                f"--augment-speeds takes positive numbers with commas, not {self.augment_speeds!r}"
            )
        return speeds


@dataclass(frozen=True)
class FrozenFlags(BatchFlags):
    """Flags of a frozen audio encoder and of the frames it gives."""

    encoder: str = flag(
        "", "checkpoint of an encoder, or a name that captionstew.load_encoder knows"
    )
    cache: str = free_flag(
        "frames",
        "keep the encoder's frames on disk, or compute them anew",
        choices=("frames", "none"),
    )
    cache_dir: Path = free_flag(
        Path("exp/embeddings"), "where frames are kept", only_with="cache=frames"
    )

    def check(self) -> None:
        if not self.encoder:
            raise ValueError(
                "--encoder is needed: a checkpoint, or a name that captionstew.load_encoder knows"
            )


@dataclass(frozen=True)
class EncoderFlags:
    """Flags of the Zipformer encoder; each empty one keeps the preset's value."""

    encoder_preset: str = flag("captionstew", "mini, small, medium, large or captionstew")
    num_encoder_layers: str = flag("", "layers per stack, comma-separated")
    downsampling_factor: str = flag("", "downsampling per stack, comma-separated")
    encoder_dim: str = flag("", "channels per stack, comma-separated")
    encoder_unmasked_dim: str = flag("", "channels per stack that the feature mask never touches")
    feedforward_dim: str = flag("", "feed-forward size per stack")
    num_heads: str = flag("", "attention heads per stack")
    query_head_dim: str = flag("", "query/key channels per head")
    value_head_dim: str = flag("", "value channels per head")
    pos_head_dim: str = flag("", "positional channels per head")
    pos_dim: int = flag(0, "channels of the positional encoding (0: the preset's)")
    cnn_module_kernel: str = flag("", "depthwise kernel per stack")
    frontend_channels: str = flag("", "channels of the convolutional frontend, three numbers")
    batch_invariant: bool = flag(False, "train with frames that do not depend on a clip's batch")
    swoosh_backend: str = flag(
        "torch", "torch, or k2 where it is installed", choices=("torch", "k2")
    )

    def check(self) -> None:
        self.encoder_config()

    def encoder_config(self) -> ZipformerConfig:
        """The preset with every non-empty flag put over it."""
        changes: dict[str, Any] = {
            "batch_invariant": self.batch_invariant,
            "swoosh_backend": self.swoosh_backend,
        }
        if self.pos_dim:
            changes["pos_dim"] = self.pos_dim
        for name in _PER_STACK:
            text = getattr(self, name)
            if text:
                changes[name] = _integers(name, text)
        return dataclasses.replace(ZipformerConfig.preset(self.encoder_preset), **changes)


@dataclass(frozen=True)
class InitFlags:
    """Flags of what training starts from instead of random weights; a resumed run goes on from its
    own checkpoint.
    """

    init_encoder: Path | None = flag(
        None, "checkpoint to start the audio encoder from: a tagger, or any other"
    )
    init_text: str = free_flag(
        "", "transformers checkpoint to start the text side from (folder or name on the Hub)"
    )


@dataclass(frozen=True)
class TextFlags:
    """Flags of the text side that learns beside the audio, or in front of frozen audio."""

    text_lr_scale: float = flag(
        1.0, "rate of the text side as a share of --base-lr; less for a pretrained one"
    )

    def check(self) -> None:
        if not self.text_lr_scale > 0:
            raise ValueError(f"--text-lr-scale must be positive, not {self.text_lr_scale}")


@dataclass(frozen=True)
class ContrastiveFlags(TextFlags):
    """Flags of the contrastive objective and of the retrieval that validates it."""

    embedding_dim: int = flag(512, "size of the joint space")
    temperature: float = flag(0.07, "initial temperature of the softmax")
    train_duplicates: str = flag(
        "ignore",
        "clips of a batch that share a caption: ignore (no negatives of each other) or negative",
        choices=("ignore", "negative"),
    )
    duplicate_captions: str = free_flag(
        "strict",
        "what counts as found in validation: the clip itself, or any with its caption",
        ("strict", "match"),
    )


@dataclass(frozen=True)
class RankingFlags:
    """What counts as found when test clips are ranked."""

    duplicate_captions: str = flag(
        "strict",
        "strict: only a caption's own clip is right (the literature's rule); match: any clip with"
        " the same caption",
        choices=("strict", "match"),
    )


_PER_STACK = (
    "num_encoder_layers",
    "downsampling_factor",
    "encoder_dim",
    "encoder_unmasked_dim",
    "feedforward_dim",
    "num_heads",
    "query_head_dim",
    "value_head_dim",
    "pos_head_dim",
    "cnn_module_kernel",
    "frontend_channels",
)


def _integers(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"--{name.replace('_', '-')} takes comma-separated integers, not {text!r}"
        ) from None
