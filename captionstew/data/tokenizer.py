"""Text to token ids: a sentencepiece model trained on the captions, or any Hugging Face tokenizer.

Both give BART's layout: every caption is wrapped in <s> ... </s>. A tokenizer travels inside the
checkpoint (`to_dict`, `from_dict`), so that evaluation needs no other file and no network.
"""

import io
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import sentencepiece
import torch
from torch import Tensor

from captionstew.errors import UserError

BYTES = 256  # pieces that stand for one byte each
OTHER_PIECES = 5  # <s> <pad> </s> <unk> <mask>
FEWEST_CHARACTERS = 20  # that a tokenizer with bytes keeps as pieces


class TokenizerError(UserError):
    """A tokenizer that cannot be trained or used; the message says what to change."""


class TooManyCharacters(TokenizerError):
    """The vocabulary cannot hold the kinds of characters that the text has."""


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
    """A model trained by `train_sentencepiece`.

    Raises:
      TokenizerError: the bytes are no such model.
    """

    def __init__(self, model: bytes) -> None:
        self._model = model
        try:
            if not model:
                raise RuntimeError  # which sentencepiece takes for a model, and prints about
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise TokenizerError(f"not a sentencepiece model ({len(model)} bytes)") from error
        self.vocab_size = self._processor.vocab_size()
        self.bos_id = self._processor.bos_id()
        self.eos_id = self._processor.eos_id()
        self.pad_id = self._processor.pad_id()
        self.mask_id = self._processor.piece_to_id("<mask>")
        _refuse_missing(
            {
                "<s>": self.bos_id >= 0,
                "</s>": self.eos_id >= 0,
                "<pad>": self.pad_id >= 0,
                "<mask>": self.mask_id != self._processor.unk_id(),
            }
        )

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
    """Any fast tokenizer of `transformers` (BART's 50k BPE, BERT's WordPiece, ...).

    Raises:
      TokenizerError: it lacks a token that is needed.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.vocab_size = len(tokenizer)
        ids = {
            "<s>": _first(tokenizer.bos_token_id, tokenizer.cls_token_id),
            "</s>": _first(tokenizer.eos_token_id, tokenizer.sep_token_id),
            "<pad>": tokenizer.pad_token_id,
            "<mask>": tokenizer.mask_token_id,
        }
        _refuse_missing({name: token_id is not None for name, token_id in ids.items()})
        self.bos_id, self.eos_id, self.pad_id, self.mask_id = ids.values()

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


def load_tokenizer(name_or_path: str | Path, flag: str = "--tokenizer") -> Tokenizer:
    """A `.model` file of sentencepiece, a folder with a Hugging Face tokenizer, or a name on the
    Hub.

    Args:
      flag: that names it, for messages.

    Raises:
      ValueError: neither a file nor a folder nor something that `transformers` can load.
      TokenizerError: it is broken, or lacks a token that is needed.
    """
    path = Path(name_or_path)
    advice = f"name another with {flag}, or train one with local/train_bpe.py"
    if path.suffix == ".model" and not path.is_file():
        raise ValueError(f"{path}: no such tokenizer; train one with local/train_bpe.py")
    try:
        if path.suffix == ".model":
            return SentencePieceTokenizer(path.read_bytes())
        return HuggingFaceTokenizer(_load_huggingface(path, str(name_or_path)))
    except TokenizerError as error:
        raise TokenizerError(f"tokenizer {name_or_path}: {error}; {advice}") from error


def _load_huggingface(path: Path, name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            name, local_files_only=path.is_dir(), trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"tokenizer {name}: not a folder here and not loadable by name"
            f" ({str(error).splitlines()[0]}); download it, or train one with local/train_bpe.py"
        ) from error
    except (KeyError, TypeError, AttributeError) as error:  # of files that hold something else
        raise TokenizerError(f"its files are broken ({type(error).__name__}: {error})") from error


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
    texts: Iterable[str],
    vocab_size: int,
    character_coverage: float = 0.9995,
    byte_fallback: bool = False,
) -> bytes:
    """Trains a BPE on captions and returns the model file's bytes. Ids as BART: <s> 0, <pad> 1,
    </s> 2, <unk> 3. Of the characters, `character_coverage` of the text is kept; the rest is <unk>,
    or its bytes with `byte_fallback`, which takes 256 pieces.

    Raises:
      TooManyCharacters: the text has more kinds of characters than `vocab_size` allows.
      TokenizerError: there is no text.
    """
    model = io.BytesIO()
    try:
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
            byte_fallback=byte_fallback,
            input_sentence_size=2_000_000,
            shuffle_input_sentence=True,
            minloglevel=2,
        )
    except RuntimeError as error:
        if "sentences_.empty()" in str(error):
            raise TokenizerError("there are no captions to train a tokenizer on") from error
        needed = re.search(r"required_chars\. \d+ vs (\d+)", str(error))
        if needed is None:
            raise
        raise TooManyCharacters(
            f"the captions have more kinds of characters than {vocab_size} pieces can hold; give"
            f" --vocab-size {needed[1]} or more, a --character-coverage below"
            f" {character_coverage:g}, or --byte-fallback true"
        ) from error
    return model.getvalue()


def train_with_bytes(
    texts: Iterable[str], vocab_size: int, character_coverage: float = 0.9995
) -> tuple[bytes, int, int]:
    """`train_sentencepiece` for any script: what does not fit is written as bytes.

    Args:
      texts: iterated over twice.

    Returns:
      the model, the number of characters that are pieces, at most half of what the bytes leave,
      and the number of different characters in the text.

    Raises:
      TokenizerError: `vocab_size` has no room for bytes.
    """
    counts = Counter(letter for text in texts for letter in text if not letter.isspace())
    room = (vocab_size - BYTES - OTHER_PIECES) // 2
    if room < FEWEST_CHARACTERS:
        least = BYTES + OTHER_PIECES + 2 * FEWEST_CHARACTERS
        raise TokenizerError(
            f"--byte-fallback needs {BYTES} pieces for bytes: give --vocab-size {least} or more,"
            f" not {vocab_size}"
        )
    if len(counts) <= room:
        model = train_sentencepiece(texts, vocab_size, character_coverage, byte_fallback=True)
        return model, len(counts), len(counts)
    kept = {letter for letter, _ in counts.most_common(room)}
    shown = ("".join(x if x in kept else " " for x in text) for text in texts)
    return train_sentencepiece(shown, vocab_size, 1.0, byte_fallback=True), room, len(counts)


def warn_of_cut(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> None:
    """Logs how many of the texts are longer than a model takes, which cuts them."""
    if texts:
        cut = int((tokenizer.encode(texts, max_tokens + 1)[1] > max_tokens).sum())
        if cut:
            logging.warning(
                "%d of %d texts are longer than the model's %d tokens, and are cut",
                cut, len(texts), max_tokens,
            )  # fmt: skip


def _first(*ids: int | None) -> int | None:
    return next((token_id for token_id in ids if token_id is not None), None)


def _refuse_missing(there: dict[str, bool]) -> None:
    missing = [name for name, found in there.items() if not found]
    if missing:
        raise TokenizerError(f"it has no {' and no '.join(missing)}, which models here need")


def _pad(rows: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), max(map(len, rows))), pad_id)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids, lengths
