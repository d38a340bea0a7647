"""Tokenizers: there and back, alone, from a folder, and out of a checkpoint."""

import pytest
import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from captionstew.checkpoint import load_checkpoint, save_checkpoint
from captionstew.data.tokenizer import (
    SentencePieceTokenizer,
    TokenizerError,
    TooManyCharacters,
    load_tokenizer,
    tokenizer_from_dict,
    train_sentencepiece,
    train_with_bytes,
    warn_of_cut,
)

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


@pytest.fixture(scope="module")
def scripts():
    """3,000 kinds of characters, a few of them frequent."""
    rare = ["".join(chr(0x4E00 + 60 * row + column) for column in range(60)) for row in range(50)]
    return [*["a dog barks, собака лает, سگ پارس"] * 50, *rare]


def test_any_script_is_trained_on_and_comes_back(scripts):
    with pytest.raises(
        TooManyCharacters, match=r"--vocab-size 3\d\d\d or more.*--byte-fallback true"
    ):
        train_sentencepiece(scripts, 600)
    model, kept, kinds = train_with_bytes(scripts, 600)
    assert kinds > 3000 and kept == (600 - 261) // 2
    tokenizer = SentencePieceTokenizer(model)
    assert tokenizer.vocab_size <= 600
    texts = [*scripts[-3:], scripts[0], "犬 🚀 กข \U00020000"]
    ids, lengths = tokenizer.encode(texts, 500)
    assert tokenizer.decode(ids) == texts
    unknown = 3
    assert not (ids == unknown).any()
    restored = tokenizer_from_dict(tokenizer.to_dict())
    assert torch.equal(restored.encode(texts, 500)[0], ids)


def test_bytes_keep_all_characters_where_they_fit(captions):
    model, kept, kinds = train_with_bytes(captions, 400)
    assert kept == kinds < 30
    tokenizer = SentencePieceTokenizer(model)
    assert tokenizer.decode(tokenizer.encode(["a dog, é犬"], 50)[0]) == ["a dog, é犬"]
    with pytest.raises(TokenizerError, match="--vocab-size 301 or more, not 300"):
        train_with_bytes(captions, 300)


def test_no_captions_to_train_on():
    with pytest.raises(TokenizerError, match="no captions to train a tokenizer on"):
        train_sentencepiece([], 300)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x08\x96" * 99])
def test_a_broken_model_file_is_one_line(tmp_path, content):
    path = tmp_path / "bpe.model"
    path.write_bytes(content)
    with pytest.raises(TokenizerError) as error:
        load_tokenizer(path, "--text-decoder")
    assert str(error.value) == (
        f"tokenizer {path}: not a sentencepiece model ({len(content)} bytes); name another with"
        " --text-decoder, or train one with local/train_bpe.py"
    )


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"version": "1.0"}'])
def test_a_broken_folder_is_one_line(folder, content):
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises((ValueError, TokenizerError)) as error:
        load_tokenizer(folder)
    assert "train_bpe.py" in str(error.value) and "\n" not in str(error.value)


def test_a_tokenizer_without_mask_or_pad_names_the_flag(folder, tmp_path):
    for names in (("mask_token",), ("mask_token", "pad_token")):
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        rest = {name: token for name, token in SPECIAL.items() if name not in names}
        path = tmp_path / "-".join(names)
        PreTrainedTokenizerFast(tokenizer_object=backend, **rest).save_pretrained(path)
        with pytest.raises(TokenizerError, match="name another with --tokenizer") as error:
            load_tokenizer(path)
        missing = " and no ".join(SPECIAL[name] for name in reversed(names))
        assert f"it has no {missing}, which" in str(error.value)


def test_a_sentencepiece_model_without_mask(tmp_path, captions):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(captions), model_prefix=str(tmp_path / "other"), vocab_size=60,
        model_type="bpe", minloglevel=2,
    )  # fmt: skip
    with pytest.raises(TokenizerError, match="it has no <pad> and no <mask>, which models here"):
        load_tokenizer(tmp_path / "other.model")


def test_cut_texts_are_counted(either, captions, caplog):
    warn_of_cut(either, captions, 128)
    warn_of_cut(either, [], 128)
    assert not caplog.text
    warn_of_cut(either, [" ".join(captions), "dog"], 9)
    assert "1 of 2 texts are longer than the model's 9 tokens, and are cut" in caplog.text
