"""The text decoder of captioning: BART's decoder (`transformers`), which reads audio frames by
cross-attention.

One forward serves both training modes of CapPa (Tschannen et al. 2023; paper equations 2 and 3),
clip by clip:

  autoregressive   inputs <s> y_1 ... y_{T-1}, causal mask:             p(y_t | y_<t, audio)
  parallel         every input is [MASK], every position sees every other one:        p(y_t | audio)

The parallel mode always has `parallel_positions` inputs, as in CapPa: with as many as the caption
has tokens the mask would tell the caption's length, and with as many as the batch's longest a
clip's loss would depend on its batch.

B clips, T' frames, L tokens (<s> and </s> count), V vocabulary.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    BartConfig,
    BartForCausalLM,
    BartForConditionalGeneration,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
)

from captionstew.data.tokenizer import Tokenizer
from captionstew.models.pooling import frame_mask

# hidden size, layers, heads, feed-forward size
ARCHITECTURES = {
    "tiny": (128, 2, 4, 512),
    "bart-base": (768, 6, 12, 3072),
}
MAX_POSITIONS = 1024  # of BART


class TextDecoder(nn.Module):
    """Audio frames and token ids -> logits of the next tokens.

    Attributes:
      dim: channels of the frames that it reads.
      vocab_size: number of token ids V.
      max_tokens: longest caption that it has positions for.
      lr_scale: its learning rate as a share of the model's (zipformer.get_parameter_groups).
    """

    lr_scale = 1.0

    def __init__(self, config: BartConfig, mask_id: int, parallel_positions: int = 127) -> None:
        super().__init__()
        self.bart = BartForCausalLM(config)
        # A checkpoint's own settings for decoding (forced tokens, beams, least lengths) are for its
        # task, not for ours.
        self.bart.generation_config = GenerationConfig(
            bos_token_id=config.bos_token_id,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
        )
        self.dim = self.bart.lm_head.in_features
        self.vocab_size = config.vocab_size
        # BART was pretrained with </s> before <s>; a decoder from scratch begins with <s>.
        start, bos = config.decoder_start_token_id, config.bos_token_id
        if start is None or bos is None:
            raise ValueError("the decoder's configuration names no token to begin with")
        self._bos = bos
        self._prefix = [] if start == bos else [start]
        self.max_tokens = config.max_position_embeddings - len(self._prefix)
        self._mask_id = mask_id
        self._parallel_positions = parallel_positions
        if parallel_positions > self.max_tokens:
            raise ValueError(
                f"captions of {parallel_positions + 1} tokens, but the decoder has"
                f" {self.max_tokens}"
            )

    def forward(
        self,
        memory: Tensor,
        memory_lengths: Tensor,
        ids: Tensor,
        id_lengths: Tensor,
        parallel: Tensor | None = None,
    ) -> Tensor:
        """(B, T', dim), (B,), (B, L), (B,) -> logits (B, L-1, V) of ids[:, 1:]

        Args:
          parallel: (B,) bool, clips to decode in parallel (default: none).

        Raises:
          ValueError: a caption is longer than the parallel mode's inputs.
        """
        batch, num_targets = ids.size(0), ids.size(1) - 1
        inputs = torch.cat([self._prefixes(batch, ids.device), ids[:, :-1]], dim=1)
        lengths = id_lengths - 1 + len(self._prefix)
        if parallel is None:
            parallel = torch.zeros(batch, dtype=torch.bool, device=ids.device)
        if parallel.any():
            if num_targets > self._parallel_positions:
                raise ValueError(
                    f"a caption of {num_targets + 1} tokens, at most"
                    f" {self._parallel_positions + 1} fit"
                )
            width = self._parallel_positions + len(self._prefix)
            inputs = F.pad(inputs, (0, width - inputs.size(1)), value=self.bart.config.pad_token_id)
            inputs = inputs.masked_fill(parallel.unsqueeze(1), self._mask_id)
            lengths = lengths.masked_fill(parallel, width)
        hidden = self.bart.model.decoder(
            input_ids=inputs,
            attention_mask=attention_mask(lengths, parallel, inputs.size(1)),
            encoder_hidden_states=memory,
            encoder_attention_mask=frame_mask(memory_lengths, memory.size(1)).long(),
            use_cache=False,
        ).last_hidden_state
        return self.bart.lm_head(hidden[:, len(self._prefix) :][:, :num_targets])

    @torch.no_grad()
    def generate(
        self, memory: Tensor, memory_lengths: Tensor, num_beams: int = 1, max_tokens: int = 128
    ) -> Tensor:
        """(B, T', dim), (B,) -> ids (B, L), from <s> to </s> and then padding, L at most max_tokens

        Greedy with one beam, else beam search by mean log-probability per token.
        """
        bos = torch.full((memory.size(0), 1), self._bos, device=memory.device)
        start = torch.cat([self._prefixes(memory.size(0), memory.device), bos], dim=1)
        ids = self.bart.generate(  # type: ignore[misc]  # a mixin whose own type leaves BART out
            input_ids=start,
            attention_mask=torch.ones_like(start),
            encoder_hidden_states=memory,
            encoder_attention_mask=frame_mask(memory_lengths, memory.size(1)).long(),
            num_beams=num_beams,
            do_sample=False,
            max_length=max_tokens + len(self._prefix),
            # `generate` would give a decoder alone a cache for self-attention only.
            past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
        )
        return ids[:, len(self._prefix) :]

    def to_dict(self) -> dict[str, Any]:
        """Plain values from which `text_decoder_from_dict` rebuilds it, with new weights."""
        config = {
            name: value
            for name, value in self.bart.config.to_dict().items()
            if name != "_name_or_path"
        }
        return {
            "bart": config,
            "mask_id": self._mask_id,
            "parallel_positions": self._parallel_positions,
        }

    def _prefixes(self, batch: int, device: torch.device) -> Tensor:
        """-> (B, 0 or 1), what stands before <s>"""
        return torch.tensor(self._prefix, dtype=torch.long, device=device).expand(batch, -1)


def attention_mask(lengths: Tensor, parallel: Tensor, width: int) -> Tensor:
    """(B,), (B,) bool -> (B, 1, width, width) bool, true where a position (second to last axis)
    sees another one

    Positions after a clip's length are seen by none; without `parallel` neither are those that come
    later.
    """
    positions = torch.arange(width, device=lengths.device)
    earlier = positions.unsqueeze(0) <= positions.unsqueeze(1)  # (width, width)
    visible = earlier | parallel[:, None, None]  # (B, width, width)
    return (visible & frame_mask(lengths, width).unsqueeze(1)).unsqueeze(1)


def build_text_decoder(
    name_or_path: str, tokenizer: Tokenizer, parallel_positions: int = 127
) -> TextDecoder:
    """`tiny` and `bart-base` start from random weights; anything else is a BART checkpoint of
    `transformers`.

    Args:
      parallel_positions: inputs of the parallel mode, the longest caption's tokens without <s>.

    Raises:
      ValueError: no BART checkpoint there, it is not complete, or it was trained with another
          tokenizer.
    """
    if name_or_path in ARCHITECTURES:
        hidden, layers, heads, feedforward = ARCHITECTURES[name_or_path]
        config = BartConfig(
            vocab_size=tokenizer.vocab_size,
            d_model=hidden,
            decoder_layers=layers,
            decoder_attention_heads=heads,
            decoder_ffn_dim=feedforward,
            max_position_embeddings=MAX_POSITIONS,
            bos_token_id=tokenizer.bos_id,
            eos_token_id=tokenizer.eos_id,
            pad_token_id=tokenizer.pad_id,
            decoder_start_token_id=tokenizer.bos_id,
        )
        return TextDecoder(config, tokenizer.mask_id, parallel_positions)
    return _load_bart(name_or_path, tokenizer, parallel_positions)


def text_decoder_from_dict(content: dict[str, Any]) -> TextDecoder:
    """Inverse of `TextDecoder.to_dict`, with new weights."""
    return TextDecoder(
        BartConfig.from_dict(content["bart"]), content["mask_id"], content["parallel_positions"]
    )


def _load_bart(name_or_path: str, tokenizer: Tokenizer, parallel_positions: int) -> TextDecoder:
    """The decoder of a whole BART model; its text encoder is left out."""
    try:
        config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False)
        if config.model_type != "bart":
            raise ValueError(f"a {config.model_type} model, not BART")
        source, report = cast(  # a pair, because the loading info is asked for
            tuple[BartForConditionalGeneration, dict[str, list[str]]],
            BartForConditionalGeneration.from_pretrained(
                name_or_path, dtype=torch.float32, output_loading_info=True
            ),
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"text decoder {name_or_path}: neither {', '.join(ARCHITECTURES)} nor a BART checkpoint"
            f" ({str(error).splitlines()[0]}); name another with --text-decoder, or --init-text in"
            " pretraining"
        ) from error
    if missing := [
        key for key in report["missing_keys"] if key.startswith(("model.decoder", "model.shared"))
    ]:
        raise ValueError(
            f"{name_or_path}: {len(missing)} weights of the decoder are missing, e.g."
            f" {min(missing)}"
        )
    if source.final_logits_bias.any():
        raise ValueError(f"{name_or_path}: its logits have a bias, which this decoder lacks")
    _check_tokenizer(name_or_path, config, tokenizer)
    decoder = TextDecoder(config, tokenizer.mask_id, parallel_positions)
    decoder.bart.model.decoder.load_state_dict(source.model.decoder.state_dict())
    return decoder


def _check_tokenizer(name_or_path: str, config: BartConfig, tokenizer: Tokenizer) -> None:
    own = (config.bos_token_id, config.pad_token_id, config.eos_token_id)
    if config.vocab_size != tokenizer.vocab_size or own != (
        tokenizer.bos_id,
        tokenizer.pad_id,
        tokenizer.eos_id,
    ):
        raise ValueError(
            f"{name_or_path} knows {config.vocab_size} tokens with <s>, <pad>, </s> = {own}, the"
            f" tokenizer has {tokenizer.vocab_size} with"
            f" {(tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id)}: a text checkpoint needs"
            f" its own tokenizer, --tokenizer {name_or_path}"
        )
