"""A tokenizer from the captions of a manifest, whatever script they are in."""

import runpy
import shutil
import sys

import pytest

from captionstew.corpora.own.read import read_folder
from captionstew.data.audio import AudioInfo
from captionstew.data.manifests.cuts import make_cut, write_cuts
from captionstew.data.tokenizer import TooManyCharacters, load_tokenizer


@pytest.fixture
def train(repository, monkeypatch, tmp_path):
    """train(captions or cuts, flag, value, ...) -> the tokenizer."""

    def call(captions, *flags):
        if isinstance(captions[0], str):
            info = AudioInfo(1.0, 16000, 1, 16000, "a")
            captions = [make_cut("a", tmp_path / "a.wav", info, captions, ["s"] * len(captions))]
        write_cuts(tmp_path / "cuts.jsonl", captions)
        command = ["train_bpe", "--manifest", tmp_path / "cuts.jsonl"]
        command += ["--output", tmp_path / "bpe.model", *flags]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        runpy.run_path(str(repository / "local" / "train_bpe.py"))["main"]()
        return load_tokenizer(tmp_path / "bpe.model")

    return call


MANY = ["".join(chr(0x4E00 + 30 * row + column) for column in range(30)) for row in range(40)]


def test_many_characters_are_written_as_bytes_and_that_is_said(train, capsys):
    tokenizer = train(MANY, "--vocab-size", 500)
    assert "119 of 1200 kinds of characters are pieces" in capsys.readouterr().out
    assert tokenizer.decode(tokenizer.encode(MANY, 500)[0]) == MANY


def test_bytes_can_be_refused_and_asked_for(train, capsys):
    with pytest.raises(TooManyCharacters, match="--byte-fallback true"):
        train(MANY, "--vocab-size", 500, "--byte-fallback", "false")
    captions = [
        f"a {animal} in the {place}" for animal in ("dog", "cat") for place in ("hall", "rain")
    ]
    train(captions, "--vocab-size", 400)
    assert "written as bytes" not in capsys.readouterr().out
    tokenizer = train(captions, "--vocab-size", 400, "--byte-fallback", "true")
    assert "all others are written as bytes" in capsys.readouterr().out
    assert tokenizer.decode(tokenizer.encode(["犬 barks"], 50)[0]) == ["犬 barks"]


@pytest.mark.parametrize("coverage", [0.0, 0.5, 0.97, 1.1])
def test_a_coverage_that_sentencepiece_does_not_take_is_refused(train, coverage, capsys):
    with pytest.raises(SystemExit):
        train(MANY, "--character-coverage", coverage)
    assert "is not between 0.98 and 1" in capsys.readouterr().err


def test_case_of_many_characters(train, shared_dir, tmp_path):
    shutil.copytree(shared_dir / "cases" / "folders" / "many_characters", tmp_path / "many")
    cuts, _ = read_folder(tmp_path / "many", progress=False)
    texts = [text for cut in cuts for text in cut.supervisions[0].custom["captions"]]
    tokenizer = train(cuts, "--vocab-size", 2000)
    assert tokenizer.decode(tokenizer.encode(texts, 1000)[0]) == texts
