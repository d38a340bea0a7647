"""Text to token ids: a sentencepiece model trained on the captions, or any Hugging Face tokenizer.

Both give BART's layout: every caption is wrapped in <s> ... </s>. A tokenizer travels inside the
checkpoint (`to_dict`, `from_dict`), so that evaluation needs no other file and no network.
"""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import sentencepiece
import torch
from torch import Tensor

from captionstew.errors import UserError


class TokenizerError(UserError):
    """A tokenizer that cannot be trained or used; the message says what to change."""


class Tokenizer(Protocol):
    """What models and recipes use."""

    vocab_size: int
    bos_id: int
    eos_id: int
    pad_id: int
    mask_id: int

    def encode(self, texts: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
        """Texts -> ids (B, L) padded with pad_id, lengths (B,); <s> and </s> count as tokens."""

    def decode(self, ids: Tensor) -> list[str]:
        """(B, L) -> texts without special tokens."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values from which `from_dict` rebuilds it."""


class SentencePieceTokenizer:
    """A model trained by `train_sentencepiece`."""

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self._processor.vocab_size()
        self.bos_id = self._processor.bos_id()
        self.eos_id = self._processor.eos_id()
        self.pad_id = self._processor.pad_id()
        self.mask_id = self._processor.piece_to_id("<mask>")

    def encode(self, texts: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
        """Texts -> ids (B, L), lengths (B,)."""
        rows = self._processor.encode(list(texts))
        return _pad(
            [[self.bos_id, *row[: max_tokens - 2], self.eos_id] for row in rows], self.pad_id
        )

    def decode(self, ids: Tensor) -> list[str]:
        """(B, L) -> texts."""
        special = {self.bos_id, self.eos_id, self.pad_id, self.mask_id}
        return [
            self._processor.decode([i for i in row if i not in special]) for row in ids.tolist()
        ]

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": "sentencepiece",
            "model": torch.frombuffer(bytearray(self._model), dtype=torch.uint8),
        }


class HuggingFaceTokenizer:
    """Any fast tokenizer of `transformers` (BART's 50k BPE, BERT's WordPiece, ...)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.vocab_size = len(tokenizer)
        self.bos_id = _first(tokenizer.bos_token_id, tokenizer.cls_token_id)
        self.eos_id = _first(tokenizer.eos_token_id, tokenizer.sep_token_id)
        self.pad_id = _first(tokenizer.pad_token_id)
        self.mask_id = _first(tokenizer.mask_token_id)

    def encode(self, texts: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
        """Texts -> ids (B, L), lengths (B,)."""
        rows = self._tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return _pad(
            [[self.bos_id, *row[: max_tokens - 2], self.eos_id] for row in rows], self.pad_id
        )

    def decode(self, ids: Tensor) -> list[str]:
        """(B, L) -> texts."""
        return self._tokenizer.batch_decode(ids, skip_special_tokens=True)

    def to_dict(self) -> dict[str, Any]:
        names = (
            "bos_token",
            "eos_token",
            "pad_token",
            "mask_token",
            "cls_token",
            "sep_token",
            "unk_token",
        )
        tokens = {
            name: str(token)
            for name in names
            if (token := getattr(self._tokenizer, name)) is not None
        }
        return {
            "kind": "huggingface",
            "json": self._tokenizer.backend_tokenizer.to_str(),
            "tokens": tokens,
        }


def load_tokenizer(name_or_path: str | Path) -> Tokenizer:
    """A `.model` file of sentencepiece, a folder with a Hugging Face tokenizer, or a name on the
    Hub.

    Raises:
      ValueError: neither a file nor a folder nor something that `transformers` can load.
    """
    path = Path(name_or_path)
    if path.suffix == ".model":
        if not path.is_file():
            raise ValueError(f"{path}: no such tokenizer; train one with local/train_bpe.py")
        return SentencePieceTokenizer(path.read_bytes())
    from transformers import AutoTokenizer

    try:
        return HuggingFaceTokenizer(
            AutoTokenizer.from_pretrained(
                str(name_or_path), local_files_only=path.is_dir(), trust_remote_code=False
            )
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"tokenizer {name_or_path}: not a folder here and not loadable by name"
            f" ({str(error).splitlines()[0]}); download it, or train one with local/train_bpe.py"
        ) from error


def tokenizer_from_dict(content: dict[str, Any]) -> Tokenizer:
    """Inverse of `to_dict`."""
    if content["kind"] == "sentencepiece":
        return SentencePieceTokenizer(content["model"].numpy().tobytes())
    if content["kind"] == "huggingface":
        from tokenizers import Tokenizer as Backend
        from transformers import PreTrainedTokenizerFast

        backend = Backend.from_str(content["json"])
        return HuggingFaceTokenizer(
            PreTrainedTokenizerFast(tokenizer_object=backend, **content["tokens"])
        )
    raise ValueError(f"unknown kind of tokenizer {content['kind']!r}")


def train_sentencepiece(
    texts: Iterable[str], vocab_size: int, character_coverage: float = 0.9995
) -> bytes:
    """Trains a BPE on captions and returns the model file's bytes. Ids as BART: <s> 0, <pad> 1,
    </s> 2, <unk> 3. Of the characters, `character_coverage` of the text is kept, the rest is <unk>.

    Raises TokenizerError when the text has more kinds of characters than `vocab_size` allows.
    """
    model = io.BytesIO()
    try:
        _train(texts, vocab_size, character_coverage, model)
    except RuntimeError as error:
        if "required_chars" not in str(error):
            raise
        raise TokenizerError(
            f"the captions have more kinds of characters than {vocab_size} pieces can hold; raise"
            f" --vocab-size, or lower --character-coverage {character_coverage:g} so that rare"
            " characters become unknown"
        ) from error
    return model.getvalue()


def _train(
    texts: Iterable[str], vocab_size: int, character_coverage: float, model: io.BytesIO
) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        user_defined_symbols=["<mask>"],
        character_coverage=character_coverage,
        input_sentence_size=2_000_000,
        shuffle_input_sentence=True,
        minloglevel=2,
    )


def _first(*ids: int | None) -> int:
    for token_id in ids:
        if token_id is not None:
            return token_id
    raise ValueError(
        "the tokenizer lacks one of the tokens <s>, </s>, <pad>, <mask> that training needs"
    )


def _pad(rows: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), max(map(len, rows))), pad_id)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids, lengths
