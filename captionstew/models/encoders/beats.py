"""BEATs under the contract of frozen encoders, through speechbrain's transformer.

    pip install --no-deps speechbrain && pip install hyperpyyaml

speechbrain's package imports torchaudio, which BEATs needs for its filter bank alone. That is
computed by this repository's own, so where torchaudio cannot be imported (its wheels are CUDA
builds), an empty stand-in takes its place while speechbrain is imported, and only then.

A checkpoint is the authors' file, {"cfg", "model"}. Patches of 16 frames x 16 bands give 8 tokens
for every 160 ms; a frame is their mean. B clips, T patches in time, D channels.
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from captionstew.checkpoint import load_weights
from captionstew.data.features.fbank import Fbank, FbankConfig
from captionstew.errors import UserError
from captionstew.hashing import sha256_of_file
from captionstew.models.encoders.base import FrozenEncoder, checkpoint_entries
from captionstew.models.pooling import frame_mask

BANDS = 128
# Of the log-mel values of int16-scaled samples over AudioSet; a published constant of the model.
FBANK_MEAN, FBANK_DEVIATION = 15.41663, 6.55582
INT16_SCALE = 2.0**15


class FrozenBeats(FrozenEncoder):
    """Last transformer layer of BEATs, mean over the bands of each time step."""

    sampling_rate = 16000

    def __init__(self, cfg: Any, encoder: nn.Module, **identity: str) -> None:
        super().__init__()
        self.patch = cfg.input_patch_size
        self.patch_embedding = nn.Conv2d(
            1, cfg.embed_dim, self.patch, stride=self.patch, bias=cfg.conv_bias
        )
        self.layer_norm = nn.LayerNorm(cfg.embed_dim)
        self.post_extract_proj = (
            nn.Linear(cfg.embed_dim, cfg.encoder_embed_dim)
            if cfg.embed_dim != cfg.encoder_embed_dim
            else None
        )
        self.encoder = encoder
        self.final_norm = cfg.layer_norm_first
        self.fbank_config = FbankConfig(num_mel_bins=BANDS, high=0.0, snip_edges=True)
        self._fbank: Fbank | None = None
        self.frame_rate = 1 / (self.fbank_config.frame_shift * self.patch)
        self.dim = cfg.encoder_embed_dim
        self.describe(
            layer=(
                f"last transformer layer ({cfg.encoder_layers}), mean over {BANDS // self.patch}"
                " bands"
            ),
            preprocessing=(
                f"{BANDS} log-mel bands of int16-scaled samples, fixed mean and deviation"
            ),
            **identity,
        )

    def encode_clips(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """B clips (N_i,) -> frames (B, T, D), lengths (B,)"""
        if self._fbank is None or self._fbank.device != clips[0].device:
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", message="Setting snip_edges=True"
                )  # as the model was trained
                self._fbank = Fbank(self.fbank_config, clips[0].device)
        features = [self._fbank.extract(clip * INT16_SCALE) for clip in clips]
        lengths = torch.tensor(
            [len(clip) // self.patch for clip in features], device=clips[0].device
        )
        # Whole patches only, so that no patch mixes a clip's end with padding.
        features = [clip[: length * self.patch] for clip, length in zip(features, lengths.tolist())]
        images = (pad_sequence(features, batch_first=True) - FBANK_MEAN) / (2 * FBANK_DEVIATION)
        patches = self.patch_embedding(images.unsqueeze(1))  # (B, channels, T, bands)
        bands = patches.size(3)
        tokens = self.layer_norm(
            patches.flatten(2).transpose(1, 2)
        )  # (B, T * bands, channels), bands fastest
        if self.post_extract_proj is not None:
            tokens = self.post_extract_proj(tokens)
        padding = ~frame_mask(lengths * bands, tokens.size(1))
        hidden, _ = self.encoder(tokens, padding_mask=padding if bool(padding.any()) else None)
        if self.final_norm:  # speechbrain's encoder applies it only when all layers are asked for
            hidden = self.encoder.get_submodule("layer_norm")(hidden)
        return hidden.unflatten(1, (-1, bands)).mean(dim=2), lengths


def load_beats(path: Path) -> FrozenBeats:
    """The encoder of a BEATs file; the classifier of a fine-tuned one is left out.

    Raises:
      CheckpointError: weights are missing, unexpected or of another shape.
      UserError: speechbrain is missing.
    """
    config_class, encoder_class = _speechbrain_classes()
    content = checkpoint_entries(path)
    cfg = config_class(content["cfg"])
    encoder = FrozenBeats(
        cfg,
        encoder_class(cfg),
        path=str(path),
        sha256=sha256_of_file(path),
        preset="beats",
        pretraining=(
            "self-supervised, fine-tuned on labels" if cfg.finetuned_model else "self-supervised"
        ),
    )
    weights = {
        key: value for key, value in content["model"].items() if not key.startswith("predictor")
    }
    load_weights(encoder, weights, path)
    return encoder


def _speechbrain_classes() -> tuple[type, type]:
    try:
        with _torchaudio_or_stand_in():
            from speechbrain.lobes.models.beats import BEATsConfig, TransformerEncoder
    except ImportError as error:
        raise UserError(
            f"BEATs needs speechbrain ({error}); pip install --no-deps speechbrain && pip install"
            " hyperpyyaml"
        ) from error
    return BEATsConfig, TransformerEncoder


@contextmanager
def _torchaudio_or_stand_in() -> Iterator[None]:
    names: tuple[str, ...] = ("torchaudio", "torchaudio.compliance", "torchaudio.compliance.kaldi")
    try:
        import torchaudio.compliance.kaldi  # noqa: F401

        names = ()
    except (ImportError, OSError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]  # halves of the failed import
        for name in names:
            sys.modules[name] = ModuleType(name)
        vars(sys.modules["torchaudio"])["__version__"] = "2.9.0"  # speechbrain asks for it
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
