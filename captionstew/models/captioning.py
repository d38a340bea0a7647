"""Captioning pretraining: a text decoder reads the encoder's frames and writes the caption, in both
modes of CapPa.

B clips, T feature frames, T' encoder frames, L caption tokens (<s> and </s> count), V vocabulary.
"""

import dataclasses
from pathlib import Path
from typing import Any, Generic

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captionstew.checkpoint import StateDict, load_weights
from captionstew.data.tokenizer import Tokenizer
from captionstew.models.audio_encoder import EncoderT
from captionstew.models.losses import Losses
from captionstew.models.pooling import frame_mask
from captionstew.models.text_decoder import TextDecoder, text_decoder_from_dict
from zipformer import Zipformer, ZipformerConfig


class CaptioningModel(nn.Module, Generic[EncoderT]):
    """Audio encoder and text decoder, with a linear bridge where their widths differ.

    The encoder maps features (B, T, F), lengths (B,) to frames (B, T', output_dim), lengths (B,).
    """

    def __init__(self, encoder: EncoderT, decoder: TextDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        same = encoder.output_dim == decoder.dim
        self.bridge = nn.Identity() if same else nn.Linear(encoder.output_dim, decoder.dim)
        self.decoder = decoder

    def forward(
        self,
        features: Tensor,
        feature_lengths: Tensor,
        ids: Tensor,
        id_lengths: Tensor,
        parallel: Tensor | None = None,
    ) -> Tensor:
        """(B, T, F), (B,), (B, L), (B,), (B,) bool -> logits (B, L-1, V) of ids[:, 1:]"""
        memory, memory_lengths = self.encode_audio(features, feature_lengths)
        return self.decoder(memory, memory_lengths, ids, id_lengths, parallel)

    def encode_audio(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, F), (B,) -> what the decoder reads (B, T', decoder.dim), (B,)"""
        frames, lengths = self.encoder(features, feature_lengths)
        return self.bridge(frames), lengths


def draw_parallel(num_clips: int, fraction: float) -> Tensor:
    """-> (num_clips,) bool: each clip is decoded in parallel with probability `fraction`.

    A draw per clip, as CapPa's code has it, and not a number per batch: that would be all or
    nothing where a batch has one or two clips. The draws come from torch's generator on the CPU,
    whose state is in every checkpoint.
    """
    return torch.rand(num_clips) < fraction


def token_losses(logits: Tensor, ids: Tensor, id_lengths: Tensor) -> Tensor:
    """(B, L-1, V), (B, L), (B,) -> (B,): - sum_t log p(y_t), over a caption's tokens after <s>,
    </s> among them

    Paper equations 2 and 3: the sum, in nats, not CapPa's mean over a caption's tokens. Every token
    weighs the same.
    """
    losses = F.cross_entropy(
        logits.float().transpose(1, 2), ids[:, 1:], reduction="none"
    )  # (B, L-1)
    return losses.masked_fill(~frame_mask(id_lengths - 1, losses.size(1)), 0.0).sum(1)


def captioning_losses(
    model: nn.Module,
    batch: dict[str, Any],
    tokenizer: Tokenizer,
    max_tokens: int,
    parallel_fraction: float,
    device: torch.device,
) -> Losses:
    """Forward pass and loss of a batch with features (B, T, F) and one caption per clip.

    `loss` is the sum over the clips, each in its own mode. The terms `autoregressive` and
    `parallel` are the sums over the clips of that mode, divided by its probability: what all clips
    would cost in it, by expectation.
    """
    ids, id_lengths = tokenizer.encode(batch["captions"], max_tokens)
    ids, id_lengths = ids.to(device), id_lengths.to(device)
    parallel = draw_parallel(len(ids), parallel_fraction).to(device)
    logits = model(
        batch["features"].to(device), batch["feature_lengths"].to(device), ids, id_lengths, parallel
    )
    losses = token_losses(logits, ids, id_lengths)
    total = losses.sum()
    terms = {"loss": total}
    if parallel_fraction < 1.0:
        terms["autoregressive"] = losses[~parallel].sum() / (1.0 - parallel_fraction)
    if parallel_fraction > 0.0:
        terms["parallel"] = losses[parallel].sum() / parallel_fraction
    return Losses(total, terms, {})


def build_captioning(config: dict[str, Any]) -> CaptioningModel[Zipformer]:
    """The model that a checkpoint's `config` describes, with new weights."""
    encoder = Zipformer(ZipformerConfig.from_dict(config["encoder"]))
    return CaptioningModel(encoder, text_decoder_from_dict(config["text_decoder"]))


def load_captioning(
    config: dict[str, Any], weights: StateDict, source: Path
) -> CaptioningModel[Zipformer]:
    """The trained model in evaluation mode, every clip's frames independent of its batch.

    Raises:
      CheckpointError: the weights do not fit the configuration.
    """
    encoder = dataclasses.replace(
        ZipformerConfig.from_dict(config["encoder"]), batch_invariant=True
    )
    model = build_captioning(config | {"encoder": encoder.to_dict()})
    load_weights(model, weights, source)
    return model.eval()
