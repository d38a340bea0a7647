"""The contract of frozen encoders, for each kind of them."""

import numpy as np
import pytest
import soundfile
import torch

import captionstew
from captionstew.data.audio import BadAudio
from captionstew.models.frozen import load_encoder
from captionstew.training.checkpoint import CheckpointError, save_checkpoint


@pytest.fixture
def checkpoint(tmp_path, tiny_model, tiny_task_config):
    path = tmp_path / "pretrained.pt"
    save_checkpoint(path, {"model": tiny_model.state_dict(), "config": tiny_task_config, "step": 1})
    return path


@pytest.fixture(params=["logmel", "random:mini", "checkpoint", "random:checkpoint:3"])
def encoder(request, checkpoint):
    return captionstew.load_encoder(request.param.replace("checkpoint", str(checkpoint)))


def ragged_waveforms(sampling_rate):
    """Clips of 0.3 to 4 s, zero-padded (B, N), and their samples."""
    counts = torch.tensor([round(seconds * sampling_rate) for seconds in (0.3, 4.0, 1.234, 2.5)])
    waveforms = 0.1 * torch.randn(len(counts), int(counts.max()), generator=torch.Generator().manual_seed(0))
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
    assert {"path", "sha256", "preset", "pretraining"} <= set(encoder.description)


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
    assert encoder.description["pretraining"] == "contrastive" and encoder.description["preset"] == "tiny"


def test_controls_are_told_apart(checkpoint):
    """Cached vectors are stored under this name: another architecture or seed must have another one."""
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


def test_clear_errors(tmp_path):
    with pytest.raises(CheckpointError, match="no such file; give a checkpoint, `logmel` or `random:"):
        load_encoder(tmp_path / "absent.pt")
    with pytest.raises(ValueError, match="unknown encoder preset 'huge'"):
        load_encoder("random:huge")
