"""Contrastive audio-language pretraining: two towers and the symmetric InfoNCE loss.

N clips of all processes together, n clips of this process, E joint embedding size.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captionstew.checkpoint import StateDict, load_weights
from captionstew.data.tokenizer import Tokenizer
from captionstew.distributed import gather_rows
from captionstew.hashing import stable_hash
from captionstew.models.audio_encoder import EncoderT
from captionstew.models.losses import Losses
from captionstew.models.pooling import mean_pool
from captionstew.models.text_tower import TextTower, build_text_tower, text_tower_from_dict
from zipformer import Zipformer, ZipformerConfig

MAX_LOGIT_SCALE = math.log(100.0)  # CLIP's bound on 1/temperature


class ContrastiveModel(nn.Module, Generic[EncoderT]):
    """Audio tower (Zipformer, mean over frames) and text tower, each projected to the unit
    sphere.
    """

    def __init__(
        self,
        encoder: EncoderT,
        text_tower: TextTower,
        embedding_dim: int,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.text_tower = text_tower
        self.embedding_dim = embedding_dim
        self.audio_projection = nn.Linear(encoder.output_dim, embedding_dim)
        self.text_projection = nn.Linear(text_tower.dim, embedding_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1.0 / temperature)))

    def embed_audio(self, features: Tensor, feature_lengths: Tensor) -> Tensor:
        """(n, T, 80), (n,) -> unit vectors (n, E)"""
        frames, lengths = self.encoder(features, feature_lengths)
        return F.normalize(self.audio_projection(mean_pool(frames, lengths)).float(), dim=-1)

    def embed_text(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(n, L), (n,) -> unit vectors (n, E)"""
        return F.normalize(self.text_projection(self.text_tower(ids, lengths)).float(), dim=-1)

    def forward(
        self, features: Tensor, feature_lengths: Tensor, ids: Tensor, id_lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> audio (n, E), text (n, E), logit scale () = 1/temperature, at most 100"""
        audio = self.embed_audio(features, feature_lengths)
        text = self.embed_text(ids, id_lengths)
        with (
            torch.no_grad()
        ):  # the parameter itself is bounded: a clamp in the graph would stop its gradient for good
            self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        return audio, text, self.logit_scale.exp()


def info_nce(
    audio: Tensor, text: Tensor, logit_scale: Tensor, caption_keys: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """audio (n, E), text (n, E) -> audio-to-text and text-to-audio losses, each summed over this
    process's n clips.

    Paper equation 1: with s_ij = cos(audio_i, text_j) / temperature over the N clips of all
    processes,

        L = -1/2 sum_i [ log softmax_j(s_ij)_i + log softmax_j(s_ji)_i ]

    so the loss to minimise is half the sum of the two terms. Sums over processes equal the loss of
    one process that holds all clips; gradients reach the clips of every process.

    Args:
      caption_keys: (n,) integers, equal for equal captions. If given, another clip with the same
        caption is left out of a clip's negatives: it is no mistake to rank it first.
    """
    all_audio, first = gather_rows(audio)
    all_text, _ = gather_rows(text)
    target = first + torch.arange(audio.size(0), device=audio.device)
    # In float32: logits go up to 100, where bfloat16 knows steps of a half and would make hard
    # negatives tie.
    with torch.autocast(audio.device.type, enabled=False):
        audio_to_text = logit_scale * audio @ all_text.T  # (n, N)
        text_to_audio = logit_scale * text @ all_audio.T  # (n, N)
    if caption_keys is not None:
        all_keys, _ = gather_rows(caption_keys)
        same = caption_keys.unsqueeze(1) == all_keys
        same[torch.arange(same.size(0), device=same.device), target] = False
        audio_to_text = audio_to_text.masked_fill(same, -math.inf)
        text_to_audio = text_to_audio.masked_fill(same, -math.inf)
    return (
        F.cross_entropy(audio_to_text, target, reduction="sum"),
        F.cross_entropy(text_to_audio, target, reduction="sum"),
    )


def caption_keys(captions: Sequence[str], device: torch.device) -> Tensor:
    """n captions -> integers (n,), equal for equal words."""
    keys = [
        stable_hash(" ".join(text.lower().split())) >> 1 for text in captions
    ]  # 63 bits fit a signed integer
    return torch.tensor(keys, dtype=torch.int64, device=device)


def contrastive_losses(
    model: nn.Module,
    batch: dict[str, Any],
    tokenizer: Tokenizer,
    max_tokens: int,
    ignore_duplicates: bool,
    device: torch.device,
) -> Losses:
    """Forward pass and both losses of a batch with features (n, T, F) and one caption per clip.

    Args:
      ignore_duplicates: clips that share a caption are no negatives of each other.
    """
    ids, id_lengths = tokenizer.encode(batch["captions"], max_tokens)
    audio, text, logit_scale = model(
        batch["features"].to(device),
        batch["feature_lengths"].to(device),
        ids.to(device),
        id_lengths.to(device),
    )
    keys = caption_keys(batch["captions"], device) if ignore_duplicates else None
    audio_to_text, text_to_audio = info_nce(audio, text, logit_scale, keys)
    total = 0.5 * (audio_to_text + text_to_audio)
    terms = {"loss": total, "audio_to_text": audio_to_text, "text_to_audio": text_to_audio}
    return Losses(total, terms, {"logit_scale": logit_scale})


def build_contrastive(config: dict[str, Any], tokenizer: Tokenizer) -> ContrastiveModel[Zipformer]:
    """The model that `config` describes, with new weights.

    `text_tower` is a name or path for `build_text_tower`, or what an earlier tower's `to_dict`
    gave, as in checkpoints.
    """
    encoder = Zipformer(ZipformerConfig.from_dict(config["encoder"]))
    if isinstance(config["text_tower"], dict):
        text_tower = text_tower_from_dict(config["text_tower"])
    else:
        text_tower = build_text_tower(config["text_tower"], tokenizer.vocab_size, tokenizer.pad_id)
    return ContrastiveModel(encoder, text_tower, config["embedding_dim"], config["temperature"])


def load_contrastive(
    config: dict[str, Any], weights: StateDict, tokenizer: Tokenizer, source: Path
) -> ContrastiveModel[Zipformer]:
    """The trained model in evaluation mode, every clip's frames independent of its batch.

    Raises:
      CheckpointError: the weights do not fit the configuration.
    """
    encoder = dataclasses.replace(
        ZipformerConfig.from_dict(config["encoder"]), batch_invariant=True
    )
    model = build_contrastive(config | {"encoder": encoder.to_dict()}, tokenizer)
    load_weights(model, weights, source)
    return model.eval()
