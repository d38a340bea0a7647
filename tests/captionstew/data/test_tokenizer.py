"""Tokenizers: there and back, alone, from a folder, and out of a checkpoint."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from captionstew.checkpoint import load_checkpoint, save_checkpoint
from captionstew.data.tokenizer import load_tokenizer, tokenizer_from_dict

SPECIAL = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}


@pytest.fixture
def folder(tmp_path, captions):
    """A byte-level BPE as BART's, trained on the captions and saved as transformers does."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL.values()), show_progress=False
    )
    backend.train_from_iterator(captions, trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL).save_pretrained(tmp_path / "bpe")
    return tmp_path / "bpe"


@pytest.fixture(params=["sentencepiece", "huggingface"])
def either(request, tokenizer, folder):
    return tokenizer if request.param == "sentencepiece" else load_tokenizer(folder)


def test_round_trip(either, captions):
    ids, lengths = either.encode(captions, 128)
    assert ids.dtype == torch.int64 and ids.shape == (len(captions), int(lengths.max()))
    assert ids.max() < either.vocab_size
    assert either.decode(ids) == captions
    for row, length in zip(ids, lengths):
        assert row[0] == either.bos_id and row[length - 1] == either.eos_id
        assert (row[length:] == either.pad_id).all() and not (row[:length] == either.pad_id).any()
    assert len({either.bos_id, either.eos_id, either.pad_id, either.mask_id}) == 4


def test_long_texts_are_cut(either, captions):
    ids, lengths = either.encode([" ".join(captions), "dog"], 9)
    assert ids.shape == (2, 9) and lengths[0] == 9 and ids[0, -1] == either.eos_id
    assert " ".join(captions).startswith(either.decode(ids)[0])


def test_an_empty_text_is_two_tokens(either):
    ids, lengths = either.encode([""], 9)
    assert ids.tolist() == [[either.bos_id, either.eos_id]] and lengths.tolist() == [2]


def test_it_travels_in_a_checkpoint(either, captions, tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"config": {"tokenizer": either.to_dict()}})
    restored = tokenizer_from_dict(load_checkpoint(tmp_path / "a.pt")["config"]["tokenizer"])
    texts = [*captions, "Étrange çedilla, 12 km/h!"]
    assert torch.equal(restored.encode(texts, 40)[0], either.encode(texts, 40)[0])
    for name in ("vocab_size", "bos_id", "eos_id", "pad_id", "mask_id"):
        assert getattr(restored, name) == getattr(either, name), name


def test_sentencepiece_file(tokenizer, tmp_path, captions):
    path = tmp_path / "bpe.model"
    path.write_bytes(tokenizer.to_dict()["model"].numpy().tobytes())
    assert torch.equal(
        load_tokenizer(path).encode(captions, 40)[0], tokenizer.encode(captions, 40)[0]
    )
    assert (tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id) == (0, 1, 2)  # as BART's


def test_special_tokens_in_a_caption_are_text(either):
    """Captions are untrusted: `</s>` in one must not end it."""
    ids, lengths = either.encode(["a dog </s> <pad> barks"], 40)
    inner = ids[0, 1 : lengths[0] - 1]
    assert not set(inner.tolist()) & {either.bos_id, either.eos_id, either.pad_id}


def test_clear_errors(tmp_path):
    with pytest.raises(
        ValueError, match=r"absent\.model: no such tokenizer; train one with local/train_bpe\.py"
    ):
        load_tokenizer(tmp_path / "absent.model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="train one with local/train_bpe.py"):
        load_tokenizer(tmp_path / "empty")
    with pytest.raises(ValueError, match="unknown kind of tokenizer 'words'"):
        tokenizer_from_dict({"kind": "words"})
