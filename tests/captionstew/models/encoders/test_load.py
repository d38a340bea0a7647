"""The contract of frozen encoders, for each kind of them."""

import ast
import json
import math

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

import captionstew
from captionstew.checkpoint import CheckpointError, save_checkpoint
from captionstew.data.audio import BadAudio
from captionstew.models.captioning import CaptioningModel
from captionstew.models.encoders.load import load_encoder
from captionstew.models.text_decoder import build_text_decoder
from zipformer import AudioTagger, Zipformer, ZipformerConfig

BASELINES = (
    "wav2vec2",
    "wav2vec2-large",
    "hubert",
    "hubert-large",
    "wavlm",
    "mert",
    "clap",
    "clap-fused",
    "beats",
)
CHECKPOINTS = ("contrastive", "captioning", "tagging", "icefall", "folder")
CONTROLS = ("logmel", "random:mini", "random:checkpoint:3")


@pytest.fixture
def checkpoint(tmp_path, tiny_model, tiny_task_config):
    path = tmp_path / "pretrained.pt"
    save_checkpoint(path, {"model": tiny_model.state_dict(), "config": tiny_task_config, "step": 1})
    return path


@pytest.fixture
def make_checkpoint(tmp_path, tiny_config, tokenizer, checkpoint):
    """make_checkpoint("icefall") -> file or folder with a Zipformer in that layout."""

    def make(layout):
        if layout == "contrastive":
            return checkpoint
        torch.manual_seed(0)
        path = tmp_path / layout
        if layout == "captioning":
            model = CaptioningModel(
                Zipformer(tiny_config), build_text_decoder("tiny", tokenizer, 23)
            )
            config = {
                "task": "captioning",
                "encoder": tiny_config.to_dict(),
                "text_decoder": model.decoder.to_dict(),
            }
            save_checkpoint(path, {"model": model.state_dict(), "config": config})
        elif layout == "tagging":
            weights = AudioTagger(tiny_config, 5).state_dict()
            config = {"task": "tagging", "encoder": tiny_config.to_dict(), "fbank": {}}
            save_checkpoint(path, {"model": weights, "config": config})
        elif layout == "icefall":
            torch.save({"model": AudioTagger(ZipformerConfig.preset("mini"), 5).state_dict()}, path)
        else:
            path.mkdir()
            save_file(Zipformer(tiny_config).state_dict(), path / "model.safetensors")
            settings = {
                "format": "captionstew",
                "encoder": tiny_config.to_dict(),
                "task": "contrastive",
                "fbank": {},
            }
            (path / "config.json").write_text(json.dumps(settings))
        return path

    return make


@pytest.fixture(params=[*CONTROLS, *CHECKPOINTS, *BASELINES])
def encoder(request, checkpoint, make_checkpoint, small_encoder):
    kind = request.param
    if kind in BASELINES:
        return captionstew.load_encoder(small_encoder(kind))
    if kind in CHECKPOINTS:
        return captionstew.load_encoder(make_checkpoint(kind))
    return captionstew.load_encoder(kind.replace("checkpoint", str(checkpoint)))


def ragged_waveforms(sampling_rate):
    """Clips of 0.3 to 4 s, zero-padded (B, N), and their samples."""
    counts = torch.tensor([round(seconds * sampling_rate) for seconds in (0.3, 4.0, 1.234, 2.5)])
    waveforms = 0.1 * torch.randn(
        len(counts), int(counts.max()), generator=torch.Generator().manual_seed(0)
    )
    for row, count in zip(waveforms, counts):
        row[count:] = 0.0
    return waveforms, counts


def test_shapes_lengths_and_frame_rate(encoder):
    waveforms, counts = ragged_waveforms(encoder.sampling_rate)
    frames, lengths = encoder(waveforms, counts)
    assert frames.dtype == torch.float32 and torch.isfinite(frames).all()
    assert frames.shape == (4, int(lengths.max()), encoder.dim)
    expected = counts / encoder.sampling_rate * encoder.frame_rate
    assert ((lengths - expected).abs() <= 2).all(), (lengths, expected)
    needed = {
        "path",
        "sha256",
        "preset",
        "pretraining",
        "layer",
        "preprocessing",
        "sampling_rate",
        "frame_rate",
        "dim",
    }
    assert needed <= set(encoder.description)
    assert encoder.description["dim"] == frames.size(2)


def test_every_clip_equals_the_same_clip_alone(encoder):
    waveforms, counts = ragged_waveforms(encoder.sampling_rate)
    with torch.inference_mode():
        frames, lengths = encoder(waveforms, counts)
        for row, count in enumerate(counts):
            alone, alone_length = encoder(waveforms[row : row + 1, :count], count.unsqueeze(0))
            assert alone_length[0] == lengths[row]
            error = (frames[row, : lengths[row]] - alone[0]).abs().max() / alone.abs().max()
            assert error <= 1e-5, f"clip {row}: {error:.2g}"


def test_frozen_for_good(encoder):
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    surrounding = torch.nn.Sequential(encoder).train()
    assert surrounding.training and not any(module.training for module in encoder.modules())
    waveforms, counts = ragged_waveforms(encoder.sampling_rate)
    assert torch.equal(encoder(waveforms, counts)[0], encoder(waveforms, counts)[0])


def test_lengths_may_be_numbers_and_waveforms_may_be_padded_further(encoder):
    waveforms, counts = ragged_waveforms(encoder.sampling_rate)
    frames, lengths = encoder(waveforms, counts)
    longer = torch.nn.functional.pad(
        waveforms, (0, 4321), value=0.5
    )  # whatever lies behind a clip is not looked at
    again, same_lengths = encoder(longer, counts.tolist())
    assert torch.equal(lengths, same_lengths) and torch.equal(frames, again)


def test_a_short_clip_counts_as_padded_to_a_quarter_second(encoder):
    samples = round(0.1 * encoder.sampling_rate)
    clip = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(clip, (0, math.ceil(0.25 * encoder.sampling_rate) - samples))
    frames, lengths = encoder(clip, [samples])
    expected, expected_lengths = encoder(padded, [padded.size(1)])
    assert (
        torch.equal(lengths, expected_lengths) and torch.equal(frames, expected) and lengths[0] >= 1
    )


def test_shapes_that_do_not_fit_are_refused(encoder):
    with pytest.raises(ValueError, match=r"expected waveforms \(B, N\)"):
        encoder(torch.zeros(2, 16_000), [16_000])
    with pytest.raises(ValueError, match="between 1 and 16000: .16001"):
        encoder(torch.zeros(1, 16_000), [16_001])


def test_embed_a_file_and_samples(encoder, tmp_path):
    samples = (0.1 * np.random.default_rng(0).normal(size=20_000)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, encoder.sampling_rate, subtype="FLOAT")
    vector = encoder.embed(tmp_path / "a.wav")
    assert vector.shape == (encoder.dim,) and vector.dtype == np.float32
    np.testing.assert_allclose(encoder.embed(samples, encoder.sampling_rate), vector, atol=1e-6)
    frames, lengths = encoder(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
    np.testing.assert_allclose(frames[0, : lengths[0]].mean(0).numpy(), vector, atol=1e-5)
    with pytest.raises(ValueError, match="sampling_rate="):
        encoder.embed(samples, 44_100)
    (tmp_path / "b.wav").write_text("no audio")
    with pytest.raises(BadAudio, match=r"b\.wav"):
        encoder.embed(tmp_path / "b.wav")


def test_weights_come_from_the_checkpoint(checkpoint, tiny_model):
    encoder = load_encoder(checkpoint)
    for name, value in tiny_model.encoder.state_dict().items():
        assert torch.equal(encoder.encoder.state_dict()[name], value), name
    assert (
        encoder.description["pretraining"] == "contrastive"
        and encoder.description["preset"] == "tiny"
    )


def test_controls_are_told_apart(checkpoint):
    """Cached vectors are stored under this name: another architecture or seed must have another
    one.
    """
    names = [
        "random:mini",
        "random:mini:1",
        f"random:{checkpoint}",
        f"random:{checkpoint}:1",
        "logmel",
        str(checkpoint),
    ]
    assert len({load_encoder(name).description["sha256"] for name in names}) == len(names)
    first, again = load_encoder("random:mini"), load_encoder("random:mini:0")
    assert first.description["sha256"] == again.description["sha256"]
    for one, two in zip(first.parameters(), again.parameters()):
        assert torch.equal(one, two)


def test_loading_draws_no_random_numbers(checkpoint):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    load_encoder("random:mini")
    assert torch.equal(torch.rand(1), expected)


def test_what_checkpoints_say_of_themselves(make_checkpoint):
    said = {layout: load_encoder(make_checkpoint(layout)).description for layout in CHECKPOINTS}
    objectives = ["contrastive", "captioning", "tagging", "tagging", "contrastive"]
    assert [said[layout]["pretraining"] for layout in CHECKPOINTS] == objectives
    assert said["icefall"]["preset"] == "mini"


def test_a_folder_is_known_by_its_content(make_checkpoint):
    folder = make_checkpoint("folder")
    before = load_encoder(folder).description["sha256"]
    (folder / "README.md").write_text("weights of mine")
    assert load_encoder(folder).description["sha256"] == before
    weights = load_file(folder / "model.safetensors")
    weights["encoder_embed.out.bias"] += 1
    save_file(weights, folder / "model.safetensors")
    assert load_encoder(folder).description["sha256"] != before


def test_clear_errors(tmp_path, checkpoint):
    with pytest.raises(
        CheckpointError,
        match="no such file or folder; give a checkpoint, hf:OWNER/NAME, `logmel` or",
    ):
        load_encoder(tmp_path / "absent.pt")
    with pytest.raises(ValueError, match="unknown encoder preset 'huge'"):
        load_encoder("random:huge")
    with pytest.raises(
        CheckpointError, match="neither a transformers folder that is known here .no model_type"
    ):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(
        CheckpointError, match="model_type 'bert'; known: wav2vec2, hubert, wavlm, mert_model, clap"
    ):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"hello there", b"\x00\x01" * 100, b"PK\x03\x04 cut short"]
)
@pytest.mark.parametrize("name", ["notes.txt", "weights.pt", "weights.safetensors"])
def test_files_that_are_no_checkpoints(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}.*(damaged|something else)"):
        load_encoder(tmp_path / name)


def test_a_newer_format_is_refused(tmp_path, checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content | {"version": 99}, tmp_path / "newer.pt")
    with pytest.raises(CheckpointError, match=r"newer\.pt: format version 99 is newer"):
        load_encoder(tmp_path / "newer.pt")


def test_other_objects_in_a_pickle_are_refused_by_name(tmp_path, tiny_model):
    torch.save({"model": tiny_model.encoder.state_dict(), "params": ast.Load()}, tmp_path / "a.pt")
    with pytest.raises(
        CheckpointError, match="more than tensors and plain values: it refers to ast.Load"
    ) as raised:
        load_encoder(tmp_path / "a.pt")
    assert "weights_only" not in str(raised.value)


def test_a_file_of_ours_that_is_no_model(tmp_path, tiny_model):
    save_checkpoint(tmp_path / "stopped-rank0.pt", {"model": tiny_model.state_dict(), "step": 3})
    with pytest.raises(CheckpointError, match=r"stopped-rank0\.pt: holds no config, so it is of"):
        load_encoder(tmp_path / "stopped-rank0.pt")
    save_checkpoint(tmp_path / "a.pt", {"model": tiny_model.state_dict(), "config": ["mini"]})
    with pytest.raises(CheckpointError, match=r"a\.pt: its entry config is a list"):
        load_encoder(tmp_path / "a.pt")


def test_nothing_is_downloaded_without_saying_so(monkeypatch):
    """A name without `hf:` never reaches the Hub; one with it says what to do where that is not
    possible.
    """
    calls = []

    def snapshot_download(name, **_):
        calls.append(name)
        raise OSError("no route to host\nmore lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(CheckpointError, match="no such file or folder"):
        load_encoder("facebook/wav2vec2-base")
    assert calls == []
    with pytest.raises(
        CheckpointError,
        match=r"cannot be downloaded \(no route to host\); download its folder elsewhere",
    ):
        load_encoder("hf:facebook/wav2vec2-base")
    assert calls == ["facebook/wav2vec2-base"]


def test_a_hub_name_takes_safetensors_where_there_are_any(monkeypatch, small_encoder):
    patterns = []

    def snapshot_download(name, allow_patterns):
        patterns.append((name, allow_patterns))
        return str(small_encoder("mert" if "MERT" in name else "hubert"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    encoder = load_encoder("hf:facebook/hubert-base-ls960")
    assert encoder.description["path"] == "hf:facebook/hubert-base-ls960" and len(patterns) == 1
    load_encoder("hf:m-a-p/MERT-v1-95M")
    assert patterns[-1] == ("m-a-p/MERT-v1-95M", ["*.json", "pytorch_model*.bin"])


@pytest.mark.parametrize(
    "waveform, message",
    [
        (torch.randint(-9000, 9000, (1, 8000), dtype=torch.int16), "samples are torch.int16"),
        (torch.full((1, 8000), float("nan")), "clip 0 has NaN or infinite samples"),
        (torch.full((1, 8000), float("inf")), "clip 0 has NaN or infinite samples"),
        (torch.randn(1, 8000) * 3000, "clip 0 has samples up to"),
    ],
)
def test_samples_that_are_no_audio_are_refused_with_the_remedy(waveform, message):
    encoder = load_encoder("logmel")
    with pytest.raises(ValueError, match=message) as error:
        encoder(waveform, [8000])
    assert "divide 16-bit samples by 32768" in str(error.value)
    if not waveform.is_floating_point():
        with pytest.raises(ValueError, match="samples are int16"):
            encoder.embed(waveform[0].numpy(), encoder.sampling_rate)
