"""Noise at the asked level, the same for a clip and epoch wherever it is drawn; mixup of energies
and targets.
"""

import math

import numpy as np
import pytest
import torch

from captionstew.data.audio import BadAudio
from captionstew.data.batches.dataset import CaptionDataset
from captionstew.data.features.fbank import PADDING_VALUE
from captionstew.data.features.mixup import mixup
from captionstew.data.features.noise import NoiseMixer, add_noise
from captionstew.data.manifests.cuts import open_cuts


def snr(samples, mixed):
    return 10 * math.log10(
        np.mean(samples.astype(float) ** 2) / np.mean((mixed - samples).astype(float) ** 2)
    )


@pytest.mark.parametrize("length", [500, 3000])
def test_noise_has_the_asked_level(length):
    generator = np.random.default_rng(0)
    samples = 0.1 * generator.normal(size=2000).astype(np.float32)
    noise = 0.02 * generator.normal(size=length).astype(np.float32)
    mixed = add_noise(samples, noise, 12.5)
    assert mixed.dtype == np.float32 and mixed.shape == samples.shape
    assert snr(samples, mixed) == pytest.approx(12.5, abs=1e-3)


def test_silence_has_no_level():
    silence, noise = np.zeros(100, dtype=np.float32), np.full(100, 0.1, dtype=np.float32)
    assert (add_noise(silence, noise, 10) == silence).all() and (
        add_noise(noise, silence, 10) == noise
    ).all()


def test_noise_stays_within_full_scale():
    loud = np.sign(np.random.default_rng(0).normal(size=1000)).astype(np.float32)
    assert np.abs(add_noise(loud, loud, 1.0)).max() == 1.0


@pytest.fixture
def noises(write_sounds):
    """Three noises in a folder and in one below it; the shortest is shorter than the clips."""
    folder = write_sounds({"a.wav": (3.0, 300), "b.wav": (0.4, 500)})
    write_sounds({"c.wav": (2.0, 700)}, folder / "more")
    (folder / "ANNOTATIONS").write_text("a.wav 300\n")
    return folder


def test_what_a_clip_gets_depends_on_seed_epoch_and_clip_alone(noises):
    samples = 0.2 * np.random.default_rng(1).normal(size=16000).astype(np.float32)
    mixer = NoiseMixer(noises, seed=5, snr_db=(10, 20))
    assert [path.name for path, _ in mixer.files] == ["a.wav", "b.wav", "c.wav"]
    assert mixer.hours == pytest.approx(5.4 / 3600)
    mixed = {
        (epoch, clip): mixer.mix(samples, epoch, f"clip-{clip}")
        for epoch in range(3)
        for clip in range(60)
    }
    again = NoiseMixer(noises, seed=5, snr_db=(10, 20))
    for epoch, clip in reversed(mixed):
        assert (again.mix(samples, epoch, f"clip-{clip}") == mixed[epoch, clip]).all()
    noisy = {key: value for key, value in mixed.items() if (value != samples).any()}
    assert 60 < len(noisy) < 120  # a half of 180
    levels = [snr(samples, value) for value in noisy.values()]
    assert 9.99 < min(levels) < 11.5 and 18.5 < max(levels) < 20.01
    assert len({value.tobytes() for value in noisy.values()}) == len(noisy)
    other = NoiseMixer(noises, seed=6, snr_db=(10, 20))
    assert any(
        (other.mix(samples, 0, f"clip-{clip}") != mixed[0, clip]).any() for clip in range(10)
    )
    never = NoiseMixer(noises, seed=5, probability=0.0)
    assert all(never.mix(samples, 0, f"clip-{clip}") is samples for clip in range(20))


def test_unusable_noise_is_named(noises, tmp_path):
    with pytest.raises(ValueError, match="empty: no recordings"):
        NoiseMixer(tmp_path / "empty", seed=0)
    with pytest.raises(ValueError, match="impossible noise"):
        NoiseMixer(noises, seed=0, snr_db=(20, 10))
    (noises / "d.wav").write_bytes(b"no audio")
    with pytest.raises(ValueError, match="d.wav: this noise cannot be opened"):
        NoiseMixer(noises, seed=0)
    (noises / "d.wav").unlink()
    mixer = NoiseMixer(noises, seed=0, probability=1.0)
    for path, _ in mixer.files:
        path.write_bytes(b"no audio any more")
    with pytest.raises(BadAudio, match="wav"):
        mixer.mix(np.ones(1000, dtype=np.float32), 0, "clip")


def test_noise_in_a_batch(mini_manifest, noises):
    cuts = open_cuts(mini_manifest).read(range(4))
    plain, noisy = (
        CaptionDataset(seed=1, noise=noise)[2, cuts]
        for noise in (None, NoiseMixer(noises, seed=1, probability=1.0))
    )
    assert (plain["num_samples"] == noisy["num_samples"]).all() and plain[
        "features"
    ].shape == noisy["features"].shape
    for one, other, length in zip(plain["features"], noisy["features"], plain["feature_lengths"]):
        assert (one[:length] != other[:length]).float().mean() > 0.9
        assert (other[length:] == PADDING_VALUE).all()


LENGTHS = torch.tensor([30, 20, 25, 10])


@pytest.fixture
def batch():
    features = torch.randn(4, 30, 8, generator=torch.Generator().manual_seed(0)) * 2 - 5
    for row, length in zip(features, LENGTHS):
        row[length:] = PADDING_VALUE
    return features, torch.eye(4)


def test_mixup_adds_energies(batch):
    features, targets = batch
    torch.manual_seed(3)
    mixed, lengths, soft = mixup(features, LENGTHS, targets, probability=1.0, alpha=2.0)
    for row in range(4):
        (partner,) = [other for other in range(4) if other != row and soft[row, other] > 0]
        weight = soft[row, row]
        assert soft[row].sum() == pytest.approx(1.0) and 0.5 <= weight < 1.0
        expected = weight * features[row].exp() + (1 - weight) * features[partner].exp()
        torch.testing.assert_close(mixed[row].exp(), expected)
        assert lengths[row] == max(LENGTHS[row], LENGTHS[partner])
        torch.testing.assert_close(
            mixed[row, lengths[row] :], torch.full((30 - lengths[row], 8), PADDING_VALUE)
        )


def test_mixup_leaves_the_others_alone(batch):
    features, targets = batch
    torch.manual_seed(0)
    mixed, lengths, soft = mixup(features, LENGTHS, targets, probability=0.5, alpha=10.0)
    alone = [row for row in range(4) if soft[row].max() == 1.0]
    assert 0 < len(alone) < 4
    for row in alone:
        assert torch.equal(mixed[row], features[row]) and lengths[row] == LENGTHS[row]
    nothing = mixup(features, LENGTHS, targets, probability=0.0, alpha=10.0)
    assert all(torch.equal(one, other) for one, other in zip(nothing, (features, LENGTHS, targets)))


def test_mixup_of_one_clip_is_the_clip(batch):
    features, targets = batch
    mixed, lengths, soft = mixup(features[:1], LENGTHS[:1], targets[:1], probability=1.0, alpha=1.0)
    torch.testing.assert_close(mixed, features[:1])
    torch.testing.assert_close(soft, targets[:1])
