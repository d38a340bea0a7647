"""Text encoders of the contrastive objective: BERT architectures of `transformers`."""

import torch
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, BertModel

from captionstew.models.pooling import mean_pool

# hidden size, layers, heads, feed-forward size
ARCHITECTURES = {
    "tiny": (128, 2, 4, 512),
    "small": (256, 4, 4, 1024),
    "bert-base": (768, 12, 12, 3072),
}


class TextTower(nn.Module):
    """Token ids (B, L), lengths (B,) -> text vectors (B, dim): the mean of the last layer over the tokens."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert
        self.dim = bert.config.hidden_size

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, L), (B,) -> (B, dim)"""
        mask = torch.arange(ids.size(1), device=ids.device) < lengths.unsqueeze(1)
        hidden = self.bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return mean_pool(hidden, lengths)


def build_text_tower(name_or_path: str, vocab_size: int, pad_id: int, dropout: float = 0.1) -> TextTower:
    """`tiny`, `small` and `bert-base` start from random weights; anything else is loaded by `transformers`.

    Raises:
      ValueError: the pretrained model's vocabulary does not hold the tokenizer's.
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
    model = AutoModel.from_pretrained(name_or_path, dtype=torch.float32)
    if model.config.vocab_size < vocab_size:
        raise ValueError(
            f"{name_or_path} knows {model.config.vocab_size} tokens, the tokenizer has {vocab_size}: "
            f"a text checkpoint needs its own tokenizer, --tokenizer {name_or_path}"
        )
    return TextTower(model)
