"""Audio-language alignment in the manner of LiT: the audio side is frozen, text components adapt to
it (paper 4.2).

The frozen encoder's frames are part of the batch (captionstew.evaluation.frames.batches), so the
models are those of pretraining with FrozenFrames where the encoder would be.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captionstew.checkpoint import CheckpointError, StateDict, load_weights
from captionstew.models.captioning import CaptioningModel
from captionstew.models.contrastive import ContrastiveModel
from captionstew.models.encoders.base import FrozenEncoder
from captionstew.models.encoders.load import load_encoder
from captionstew.models.text_decoder import text_decoder_from_dict
from captionstew.models.text_tower import text_tower_from_dict

CROSS_ATTENTION = (".encoder_attn.", ".encoder_attn_layer_norm.")  # of transformers' BART


class FrozenFrames(nn.Module):
    """Stands where a trained encoder would. Channels get mean 0 and deviation 1, whatever scale the
    encoder has.

    Without that, encoders would compete in the scale of their channels: it decides how fast a
    projection learns.
    """

    def __init__(
        self, dim: int, mean: Tensor | None = None, deviation: Tensor | None = None
    ) -> None:
        super().__init__()
        self.output_dim = dim
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(dim) if mean is None else mean)
        self.register_buffer("deviation", torch.ones(dim) if deviation is None else deviation)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T', dim), (B,) -> the same, scaled"""
        return (frames - self.mean) / self.deviation, lengths


def freeze_all_but_cross_attention(
    model: CaptioningModel[FrozenFrames],
) -> CaptioningModel[FrozenFrames]:
    """Leaves gradients to the decoder's cross-attention (with its layer norm) and to the bridge
    alone.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(
            name.startswith("bridge.") or any(part in name for part in CROSS_ATTENTION)
        )
    return model


def count_parameters(model: nn.Module, encoder: FrozenEncoder) -> dict[str, int]:
    """Numbers of trained and of frozen parameters, the audio encoder among the frozen ones."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    return {
        "trained_parameters": trained,
        "frozen_parameters": frozen + sum(p.numel() for p in encoder.parameters()),
    }


def log_parameters(model: nn.Module, encoder: FrozenEncoder) -> None:
    """Says which parts train and which are frozen."""
    for name, module in model.named_children():
        own = list(module.parameters())
        trained = sum(p.numel() for p in own if p.requires_grad)
        logging.info(
            "%s: %d parameters train, %d are frozen",
            name,
            trained,
            sum(p.numel() for p in own) - trained,
        )
    frozen = sum(p.numel() for p in encoder.parameters())
    logging.info("audio encoder %s: %d parameters, all frozen", encoder.description["path"], frozen)


def load_lit_retrieval(
    config: dict[str, Any], weights: StateDict, source: Path
) -> ContrastiveModel[FrozenFrames]:
    """The adapted model in evaluation mode; its batches hold the frozen encoder's frames.

    Raises:
      CheckpointError: the weights do not fit the configuration.
    """
    frames = FrozenFrames(config["frame_dim"])
    tower = text_tower_from_dict(config["text_tower"])
    model = ContrastiveModel(frames, tower, config["embedding_dim"], config["temperature"])
    load_weights(model, weights, source)
    return model.eval()


def load_lit_captioning(
    config: dict[str, Any], weights: StateDict, source: Path
) -> CaptioningModel[FrozenFrames]:
    """The adapted model in evaluation mode; its batches hold the frozen encoder's frames.

    Raises:
      CheckpointError: the weights do not fit the configuration.
    """
    model = CaptioningModel(
        FrozenFrames(config["frame_dim"]), text_decoder_from_dict(config["text_decoder"])
    )
    load_weights(model, weights, source)
    return freeze_all_but_cross_attention(model).eval()


def audio_encoder_of(
    config: dict[str, Any], path: str, device: torch.device, source: Path
) -> FrozenEncoder:
    """The encoder that the model was adapted to, from where it lay then, or from `path`.

    Raises:
      CheckpointError: it is gone, or it is another one now.
    """
    asked = path or config["audio_encoder"]["path"]
    encoder = load_encoder(asked, device)
    if encoder.description["sha256"] != config["audio_encoder"]["sha256"]:
        raise CheckpointError(
            f"{source} was adapted to another encoder than {asked} is now; name it with --encoder"
        )
    return encoder
