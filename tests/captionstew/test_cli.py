"""The commands of `captionstew` on files, and the Python behind them."""

import csv
import io
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

import captionstew
from captionstew.checkpoint import CheckpointError, save_checkpoint
from captionstew.cli import main
from captionstew.data.audio import BadAudio, read_audio
from captionstew.data.features.fbank import Fbank
from captionstew.errors import UserError
from captionstew.inference import audio_files
from captionstew.inference.audio_files import AudioFiles, find_audio
from captionstew.inference.embedding import embed_files
from captionstew.inference.retriever import Retriever
from captionstew.inference.search_index import load_index
from captionstew.models.captioning import CaptioningModel
from captionstew.models.encoders import base
from captionstew.models.encoders.stored import load_embeddings
from captionstew.models.text_decoder import build_text_decoder
from zipformer import Zipformer

SOUNDS = {
    "a.wav": (0.3, 300),
    "b.wav": (2.0, 900),
    "c.wav": (1.1, 2500),
    "d.wav": (0.7, 150),
    "e.wav": (3.2, 600),
}


@pytest.fixture
def folder(write_sounds):
    return write_sounds(SOUNDS)


@pytest.fixture
def contrastive(tmp_path, tiny_model, tiny_task_config):
    """Weights moved away from their initial values, so that clips and texts differ."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in tiny_model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    path = tmp_path / "contrastive.pt"
    save_checkpoint(path, {"model": tiny_model.state_dict(), "config": tiny_task_config})
    return path


@pytest.fixture
def captioning(tmp_path, tiny_config, tiny_task_config, tokenizer):
    torch.manual_seed(2)
    model = CaptioningModel(Zipformer(tiny_config), build_text_decoder("tiny", tokenizer, 23))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    config = {name: tiny_task_config[name] for name in ("preset", "encoder", "fbank", "tokenizer")}
    config |= {
        "task": "captioning",
        "text_decoder": model.decoder.to_dict(),
        "max_caption_tokens": 12,
    }
    path = tmp_path / "captioning.pt"
    save_checkpoint(path, {"model": model.state_dict(), "config": config})
    return path


def run(*arguments):
    options = [] if arguments[0] == "export" else ["--num-workers", "0", "--device", "cpu"]
    return main([*map(str, arguments), *options])


@pytest.mark.parametrize("suffix", ["parquet", "npz", "npy"])
def test_embed(folder, contrastive, tmp_path, capsys, suffix):
    output = tmp_path / f"vectors.{suffix}"
    assert run("embed", folder, "--encoder", contrastive, "--output", output) == 0
    stored = load_embeddings(output)
    assert list(stored.ids) == [str(folder / name) for name in sorted(SOUNDS)]
    encoder = captionstew.load_encoder(contrastive)
    for name in SOUNDS:
        expected = encoder.embed(folder / name)
        np.testing.assert_allclose(
            stored.select([str(folder / name)])[0], expected, rtol=0, atol=1e-5
        )
    assert f"wrote {output}: 5 vectors of 32" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["contrastive", "logmel", "wav2vec2", "hubert-large", "mert", "clap", "beats"]
)
def test_batches_equal_one_by_one_to_1e_5(folder, contrastive, small_encoder, name):
    path = {"contrastive": contrastive, "logmel": "logmel"}.get(name) or small_encoder(name)
    encoder = captionstew.load_encoder(path)
    together = embed_files(encoder, AudioFiles(find_audio([folder])), max_duration=60)
    alone = np.stack([encoder.embed(file) for file in find_audio([folder])])
    assert np.abs(together - alone).max() <= 1e-5 * max(1.0, np.abs(alone).max())


def test_batches_keep_to_their_seconds_and_hold_every_piece(folder):
    files = AudioFiles(find_audio([folder]))
    batches = list(files.batches(16000, max_duration=4.0, num_workers=0))
    assert (
        len(batches) > 1
        and sorted(piece.file for pieces, _, _ in batches for piece in pieces) == files.files
    )
    for pieces, waveforms, counts in batches:
        assert len(pieces) == 1 or waveforms.numel() <= 4.0 * 16000
        assert [len(piece.samples) for piece in pieces] == counts


def test_long_recordings_are_taken_in_equal_pieces(write_sounds, contrastive):
    folder = write_sounds({"long.wav": (150.0, 300)})
    files = AudioFiles(find_audio([folder]))
    encoder = captionstew.load_encoder("logmel")
    pieces = [piece for pieces, _, _ in files.batches(16000, 60.0, 0) for piece in pieces]
    assert [(piece.start, len(piece.samples)) for piece in pieces] == [
        (0, 800_000),
        (50, 800_000),
        (100, 800_000),
    ]
    vector = embed_files(encoder, files, max_duration=120)[0]
    parts = [encoder.embed(piece.samples.numpy(), 16000) for piece in pieces]
    np.testing.assert_allclose(vector, np.mean(parts, axis=0), atol=1e-4)


@pytest.mark.parametrize(
    "name, rate", [("a.flac", 16000), ("a.flac", 22050), ("a.flac", 44100), ("a.m4a", 44100)]
)
def test_a_very_long_recording_is_decoded_in_pieces(tmp_path, monkeypatch, encode, name, rate):
    """The pieces are those of the recording as a whole, whatever its rate."""
    times = np.arange(126 * rate) / rate
    sweep = 0.4 * np.sin(2 * np.pi * (200 * times + 10 * times**2))
    if name == "a.flac":
        soundfile.write(tmp_path / name, sweep, rate)
    else:
        encode(tmp_path / name, sweep, rate, "aac")

    def pieces():
        batches = AudioFiles([str(tmp_path / name)]).batches(16000, 60.0, 0)
        return [piece for pieces, _, _ in batches for piece in pieces]

    whole = pieces()
    asked = []
    read = audio_files.read_audio
    monkeypatch.setattr(audio_files, "LONG", 100.0)
    monkeypatch.setattr(
        audio_files, "read_audio", lambda *args, **more: asked.append(args) or read(*args, **more)
    )
    parts = pieces()
    assert len(parts) == len(whole) == 3 and len(asked) == 3
    assert all(duration < 44 for _, _, duration, _ in asked)
    for part, piece in zip(parts, whole):
        assert part.start == pytest.approx(piece.start, abs=1e-4)
        assert abs(len(part.samples) - len(piece.samples)) <= 1
        count = min(len(part.samples), len(piece.samples)) - 1
        apart = [  # where a piece begins between two samples, it may begin at either
            np.abs(part.samples[one:][:count] - piece.samples[other:][:count]).max()
            for one, other in ((0, 0), (0, 1), (1, 0))
        ]
        assert min(apart) < 2e-3


def test_a_recording_that_is_too_long_for_one_piece_is_refused_before_it_is_read(
    tmp_path, monkeypatch
):
    soundfile.write(tmp_path / "long.wav", np.zeros(601 * 8000), 8000)
    monkeypatch.setattr(base, "read_audio", None)
    with pytest.raises(ValueError, match=r"601 s are more .* \(600 s\); `captionstew embed` takes"):
        captionstew.load_encoder("logmel").embed(tmp_path / "long.wav")


def test_broken_files_are_named_and_counted(folder, contrastive, tmp_path, capsys):
    (folder / "bad.wav").write_text("no audio")
    (folder / "empty.flac").touch()
    output = tmp_path / "vectors.npz"
    assert (
        run("embed", folder, tmp_path / "absent.wav", "--encoder", contrastive, "--output", output)
        == 3
    )
    errors = capsys.readouterr().err
    assert f"captionstew: {folder / 'bad.wav'}: is not readable audio" in errors
    assert (
        f"{folder / 'empty.flac'}: file is empty" in errors
        and "absent.wav: file does not exist" in errors
    )
    assert "captionstew: 3 of 8 files could not be read" in errors
    assert len(load_embeddings(output).ids) == 5
    with pytest.raises(UserError, match="none of the 1 files could be read"):
        run(
            "embed", folder / "bad.wav", "--encoder", contrastive, "--output", tmp_path / "none.npz"
        )
    assert not (tmp_path / "none.npz").exists()


def test_caption(folder, captioning, tmp_path, capsys):
    (folder / "bad.wav").write_text("no audio")
    assert (
        run("caption", folder, "--checkpoint", captioning, "--output", tmp_path / "captions.csv")
        == 3
    )
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    captioner = captionstew.load_captioner(captioning)
    names = [str(folder / name) for name in sorted(SOUNDS)]
    expected = [row.caption for name in names for row in captioner.caption([name])]
    assert [row[0] for row in rows] == names and [row[1] for row in rows] == expected
    assert len(set(expected)) > 1
    with open(tmp_path / "captions.csv", encoding="utf-8", newline="") as file:
        assert [(row["file"], row["caption"]) for row in csv.DictReader(file)] == list(
            zip(names, expected)
        )
    with pytest.raises(BadAudio, match=r"bad\.wav"):
        captioner.caption([folder])


def test_search_keeps_its_index_up_to_date(folder, contrastive, tmp_path, capsys, monkeypatch):
    index = tmp_path / "sounds.index.npz"
    common = ("--checkpoint", contrastive, "--index", index, "--query", "a dog barks", "--top", 2)
    assert run("search", folder, *common) == 0
    first = capsys.readouterr().out.splitlines()
    assert first[0] == "# a dog barks" and len(first) == 3
    retriever = captionstew.load_retriever(contrastive)
    vectors, query = load_index(index).vectors, retriever.embed_texts(["a dog barks"])[0]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    fbank = retriever.encoder.fbank_config
    clips = [torch.from_numpy(read_audio(file)) for file in load_index(index).files]
    with torch.inference_mode():  # as the recipe's decode.py embeds them
        expected = retriever.model.embed_audio(*Fbank(fbank).extract_batch(clips))
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    best = max(range(5), key=lambda row: vectors[row] @ query)
    assert first[1] == f"{vectors[best] @ query:.4f}\t{load_index(index).files[best]}"

    read = []
    monkeypatch.setattr(
        "captionstew.inference.audio_files.read_audio",
        lambda path, **_: read.append(path) or np.zeros(16000, "float32"),
    )
    assert run("search", folder, *common) == 0 and read == []
    assert capsys.readouterr().out.splitlines() == first
    os.utime(folder / "b.wav", ns=(1, 1))
    (folder / "a.wav").unlink()
    assert run("search", folder, *common) == 0 and read == [str(folder / "b.wav")]
    assert load_index(index).files == tuple(
        str(folder / name) for name in sorted(SOUNDS) if name != "a.wav"
    )


def test_an_index_of_more_files_is_not_thrown_away(folder, contrastive, tmp_path):
    index = tmp_path / "i.npz"
    run("search", folder, "--checkpoint", contrastive, "--index", index, "--query", "rain")
    before = load_index(index).files
    with pytest.raises(ValueError, match="index of more than these files"):
        run("search", before[0], "--checkpoint", contrastive, "--index", index, "--query", "rain")
    assert load_index(index).files == before


def test_an_index_knows_its_files_from_any_folder(folder, contrastive, tmp_path, monkeypatch):
    retriever, path = captionstew.load_retriever(contrastive), tmp_path / "i.npz"
    monkeypatch.chdir(folder.parent)
    index, _ = retriever.index([folder.name], path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Retriever, "embed_audio", lambda *_: pytest.fail("nothing has changed"))
    assert retriever.index([folder], path)[0].files == index.files == tuple(find_audio([folder]))


def test_an_interrupted_index_keeps_what_it_has(folder, contrastive, tmp_path, monkeypatch):
    monkeypatch.setattr("captionstew.inference.retriever.SAVE_EVERY", 2)
    retriever, path, embed_audio = (
        captionstew.load_retriever(contrastive),
        tmp_path / "i.npz",
        Retriever.embed_audio,
    )
    parts = []

    def until_the_third(self, files, *arguments):
        parts.append(files.files)
        if len(parts) == 3:
            raise KeyboardInterrupt
        return embed_audio(self, files, *arguments)

    monkeypatch.setattr(Retriever, "embed_audio", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        retriever.index([folder], path)
    assert [len(part) for part in parts] == [2, 2, 1] and len(load_index(path).files) == 4
    index, failed = retriever.index([folder], path)
    assert parts[3:] == [parts[2]] and failed == {} and index.files == tuple(find_audio([folder]))
    np.testing.assert_array_equal(index.vectors, load_index(path).vectors)


def test_search_reads_queries_from_stdin_and_needs_no_files(
    folder, contrastive, tmp_path, capsys, monkeypatch
):
    index = tmp_path / "i.npz"
    with pytest.raises(UserError, match="no such index; name files or folders"):
        run("search", "--checkpoint", contrastive, "--index", index, "--query", "rain")
    run("search", folder, "--checkpoint", contrastive, "--index", index, "--query", "rain")
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.StringIO("rain\n\na cat meows\n"))
    assert run("search", "--checkpoint", contrastive, "--index", index, "--top", 1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[2]] == ["# rain", "# a cat meows"] and len(lines) == 4


def test_an_index_of_another_checkpoint_or_kind_is_refused(folder, contrastive, tmp_path):
    index = tmp_path / "i.npz"
    run("search", folder, "--checkpoint", contrastive, "--index", index, "--query", "rain")
    content = torch.load(contrastive, weights_only=True)
    content["model"]["logit_scale"] += 1
    other = tmp_path / "other.pt"
    torch.save(content, other)
    with pytest.raises(ValueError, match="index was made with another checkpoint"):
        run("search", folder, "--checkpoint", other, "--index", index, "--query", "rain")
    index.write_text("no index")
    with pytest.raises(ValueError, match=r"i\.npz: not an index of captionstew search"):
        run("search", folder, "--checkpoint", contrastive, "--index", index, "--query", "rain")


def test_labels_given_twice_count_once(folder, contrastive, capsys):
    arguments = ("classify", folder, "--checkpoint", contrastive, "--top", 9, "--labels")
    assert run(*arguments, "car_horn,dog") == 0
    once = capsys.readouterr()
    assert run(*arguments, "car_horn, dog,car horn,dog,dog") == 0
    twice = capsys.readouterr()
    assert twice.out == once.out and not once.err
    assert twice.err == (
        "captionstew: --labels names these more than once, which counts once: car horn, dog\n"
    )
    with pytest.raises(ValueError, match="at least two different labels"):
        run(*arguments, "dog,dog")


def test_classify(folder, contrastive, capsys):
    labels = ["dog", "car_horn", "rain"]
    assert (
        run(
            "classify",
            folder,
            "--checkpoint",
            contrastive,
            "--labels",
            "dog, car_horn,rain,",
            "--top",
            3,
        )
        == 0
    )
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    retriever = captionstew.load_retriever(contrastive)
    text = retriever.embed_texts(
        ["The sound of dog.", "The sound of car horn.", "The sound of rain."]
    )
    files = AudioFiles(find_audio([folder]))
    logits = (
        float(retriever.model.logit_scale.detach().exp()) * retriever.embed_audio(files) @ text.T
    )
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert len(rows) == 15
    for number, file in enumerate(files.files):
        of_file = rows[3 * number : 3 * number + 3]
        assert [row[0] for row in of_file] == [file] * 3
        assert [row[1] for row in of_file] == [labels[i] for i in (-expected[number]).argsort()]
        np.testing.assert_allclose(
            [float(row[2]) for row in of_file], sorted(expected[number])[::-1], atol=2e-4
        )
    with pytest.raises(ValueError, match="at least two different labels"):
        run("classify", folder, "--checkpoint", contrastive, "--labels", "dog")
    with pytest.raises(ValueError, match="template needs"):
        run(
            "classify",
            folder,
            "--checkpoint",
            contrastive,
            "--labels",
            "a,b",
            "--template",
            "sound",
        )


def test_a_checkpoint_of_another_objective_is_refused(folder, contrastive, captioning, tmp_path):
    with pytest.raises(
        CheckpointError, match="trained for contrastive; captions need a checkpoint of captioning"
    ):
        run("caption", folder, "--checkpoint", contrastive)
    with pytest.raises(
        CheckpointError,
        match="trained for captioning; search and labels need one trained contrastively",
    ):
        run("classify", folder, "--checkpoint", captioning, "--labels", "a,b")


def test_wrong_options(folder, tmp_path):
    for options in (
        ["embed"],
        ["sing"],
        ["search", "--index", "i"],
        ["caption", str(folder), "--num-beams", "0"],
        ["caption", str(folder), "--max-duration", "0"],
        ["caption", str(folder), "--max-duration", "nan"],
        ["caption", str(folder), "--num-workers", "-1"],
    ):
        with pytest.raises(SystemExit) as error:
            main(options)
        assert error.value.code == 2
    with pytest.raises(
        ValueError, match=r"\.parquet, \.npz or \.npy"
    ):  # before anything is computed
        run(
            "embed",
            folder,
            "--encoder",
            tmp_path / "absent.pt",
            "--output",
            tmp_path / "vectors.csv",
        )
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="no audio files below it"):
        run(
            "embed",
            tmp_path / "nothing",
            "--encoder",
            "logmel",
            "--output",
            tmp_path / "vectors.npz",
        )


def test_control_characters_do_not_reach_the_terminal(write_sounds, contrastive, capsys):
    folder = write_sounds({"x\x1b[31m\n.wav": (0.5, 300)})
    run("classify", folder, "--checkpoint", contrastive, "--labels", "dog,rain")
    out = capsys.readouterr().out
    assert "\x1b" not in out and "x?[31m?.wav\t" in out


@pytest.mark.slow
def test_the_program_ends_with_one_line(folder, contrastive, tmp_path):
    """As a user runs it: worker processes, exit status, messages."""
    (folder / "bad.wav").write_text("no audio")

    def program(*arguments):
        command = [sys.executable, "-m", "captionstew.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    good = program(
        "embed",
        folder,
        "--encoder",
        contrastive,
        "--output",
        tmp_path / "v.parquet",
        "--device",
        "cpu",
    )
    assert (
        good.returncode == 3 and good.stdout == f"wrote {tmp_path / 'v.parquet'}: 5 vectors of 32\n"
    )
    bad = program(
        "embed", folder, "--encoder", tmp_path / "absent.pt", "--output", tmp_path / "v.parquet"
    )
    assert (
        bad.returncode == 1
        and len(bad.stderr.splitlines()) == 1
        and "absent.pt: no such file" in bad.stderr
    )


@pytest.mark.parametrize("command", [["embed", "--encoder"], ["caption", "--checkpoint"]])
def test_outputs_that_cannot_be_written_are_refused_before_a_model_is_read(tmp_path, command):
    name, option = command
    arguments = [name, "a.wav", option, tmp_path / "no.pt", "--output"]
    with pytest.raises(UserError, match="there is no folder .*missing; make it first"):
        run(*arguments, tmp_path / "missing" / "a.parquet")
    (tmp_path / "a.parquet").mkdir()
    with pytest.raises(UserError, match="is a folder; name a file in it"):
        run(*arguments, tmp_path / "a.parquet")
