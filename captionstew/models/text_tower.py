"""Text encoders of the contrastive objective: BERT architectures of `transformers`, from scratch or
pretrained.
"""

from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, PreTrainedModel

from captionstew.models.pooling import frame_mask, mean_pool

# hidden size, layers, heads, feed-forward size
ARCHITECTURES = {
    "tiny": (128, 2, 4, 512),
    "small": (256, 4, 4, 1024),
    "bert-base": (768, 12, 12, 3072),
}


class TextTower(nn.Module):
    """Token ids (B, L), lengths (B,) -> text vectors (B, dim): the mean of the last layer over the
    tokens.

    Attributes:
      dim: channels of the vectors.
      max_tokens: longest text that it has positions for.
      lr_scale: its learning rate as a share of the model's (zipformer.get_parameter_groups).
    """

    lr_scale = 1.0

    def __init__(self, bert: PreTrainedModel) -> None:
        super().__init__()
        # What some checkpoints have for their first token; the mean does without.
        bert.pooler = None  # type: ignore[assignment]  # nn.Module's types have no empty place
        self.bert = bert
        self.dim: int = bert.config.hidden_size
        self.max_tokens = (
            bert.config.max_position_embeddings - 2
        )  # RoBERTa counts its positions from 2

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, L), (B,) -> (B, dim)"""
        mask = frame_mask(lengths, ids.size(1)).long()
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        return mean_pool(hidden, lengths)

    def to_dict(self) -> dict[str, Any]:
        """Plain values from which `text_tower_from_dict` rebuilds it, with new weights."""
        return {
            name: value
            for name, value in self.bert.config.to_dict().items()
            if name != "_name_or_path"
        }


def build_text_tower(
    name_or_path: str, vocab_size: int, pad_id: int, dropout: float = 0.1
) -> TextTower:
    """`tiny`, `small` and `bert-base` start from random weights; anything else is loaded by
    `transformers`.

    Raises:
      ValueError: no text encoder there, weights of it are missing, or its vocabulary is not the
          tokenizer's.
    """
    if name_or_path in ARCHITECTURES:
        hidden, layers, heads, feedforward = ARCHITECTURES[name_or_path]
        config = BertConfig(
            vocab_size=vocab_size,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=feedforward,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            pad_token_id=pad_id,
        )
        return TextTower(BertModel(config, add_pooling_layer=False))
    return _load_pretrained(name_or_path, vocab_size)


def text_tower_from_dict(content: dict[str, Any]) -> TextTower:
    """Inverse of `TextTower.to_dict`, with new weights."""
    return TextTower(AutoModel.from_config(AutoConfig.for_model(**content)))


def _load_pretrained(name_or_path: str, vocab_size: int) -> TextTower:
    try:
        model, report = AutoModel.from_pretrained(
            name_or_path, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"text tower {name_or_path}: neither {', '.join(ARCHITECTURES)} nor a checkpoint of"
            f" transformers ({str(error).splitlines()[0]}); name another with --text-tower, or"
            " --init-text in pretraining"
        ) from error
    if model.config.is_encoder_decoder:
        raise ValueError(
            f"{name_or_path}: a {model.config.model_type} model has a decoder; give an encoder like"
            " BERT"
        )
    if missing := [key for key in report["missing_keys"] if not key.startswith("pooler.")]:
        raise ValueError(f"{name_or_path}: {len(missing)} weights are missing, e.g. {min(missing)}")
    # A checkpoint may have a few rows more than its tokenizer has tokens, never fewer.
    if not vocab_size <= model.config.vocab_size < vocab_size + 1024:
        raise ValueError(
            f"{name_or_path} knows {model.config.vocab_size} tokens, the tokenizer has"
            f" {vocab_size}: a text checkpoint needs its own tokenizer"
        )
    return TextTower(model)
