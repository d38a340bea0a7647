import math
import random

import numpy as np
import pytest
import torch

from captionstew.data.features.augment import (
    Augmentation,
    AugmentConfig,
    SpecAugment,
    augment_features,
    augment_samples,
    draw_augmentation,
)
from captionstew.data.features.fbank import PADDING_VALUE, Fbank, FbankConfig

CONFIG = AugmentConfig(max_gain_db=6.0, min_crop=0.7, max_delay=0.5, speeds=(0.9, 1.0, 1.1))


def samples(duration=2.0):
    return (0.1 * np.random.default_rng(0).standard_normal(int(duration * 16000))).astype(
        np.float32
    )


def test_draws_are_fixed_by_seed_epoch_and_clip():
    draw = draw_augmentation(CONFIG, 1, 2, "a")
    assert draw == draw_augmentation(CONFIG, 1, 2, "a")
    others = [
        draw_augmentation(CONFIG, *place) for place in ((2, 2, "a"), (1, 3, "a"), (1, 2, "b"))
    ]
    assert len({draw, *others}) == 4


def test_draws_fill_their_ranges():
    draws = [draw_augmentation(CONFIG, 0, epoch, "a") for epoch in range(500)]
    assert {draw.speed for draw in draws} == {0.9, 1.0, 1.1}
    for values, low, high in (
        ([draw.gain_db for draw in draws], -6.0, 6.0),
        ([draw.keep for draw in draws], 0.7, 1.0),
        ([draw.delay for draw in draws], 0.0, 0.5),
        ([draw.start for draw in draws], 0.0, 1.0),
    ):
        width = high - low
        assert low <= min(values) < low + 0.05 * width and high - 0.05 * width < max(values) <= high


def test_defaults_change_nothing():
    draw = draw_augmentation(AugmentConfig(), 0, 0, "a")
    np.testing.assert_array_equal(augment_samples(samples(), draw), samples())
    features = torch.randn(50, 80).clamp_(min=PADDING_VALUE)
    assert torch.equal(augment_features(features, draw), features)


def test_gain_is_in_decibels_and_clips_at_full_scale():
    louder = augment_samples(samples(), Augmentation(gain_db=6.0))
    np.testing.assert_allclose(louder, samples() * 10**0.3, rtol=1e-5)
    assert (
        np.abs(augment_samples(np.full(8000, 0.9, np.float32), Augmentation(gain_db=6.0))).max()
        == 1.0
    )


def test_crop_and_delay():
    cropped = augment_samples(samples(), Augmentation(keep=0.75, start=1.0, delay=0.25))
    np.testing.assert_array_equal(
        cropped, np.concatenate([np.zeros(4000), samples()[8000:]]).astype(np.float32)
    )


def test_crop_never_goes_below_a_quarter_of_a_second():
    assert len(augment_samples(samples(0.3), Augmentation(keep=0.1))) == 4000
    assert len(augment_features(torch.zeros(30, 80), Augmentation(keep=0.1))) == 25


def test_speed_changes_length_and_pitch():
    time = np.arange(32000) / 16000
    faster = augment_samples(
        np.sin(2 * np.pi * 1000 * time).astype(np.float32), Augmentation(speed=1.1)
    )
    assert len(faster) == pytest.approx(32000 / 1.1, abs=2)
    spectrum = np.abs(np.fft.rfft(faster))
    assert np.argmax(spectrum) * 16000 / len(faster) == pytest.approx(1100, abs=1)
    assert len(augment_samples(samples(0.26), Augmentation(speed=1.1))) == 4000


def test_the_same_draw_on_features_and_on_samples():
    draw = Augmentation(keep=0.5, start=0.5, delay=0.2, gain_db=-4.0)
    fbank = Fbank(FbankConfig())
    direct = fbank.extract(torch.from_numpy(augment_samples(samples(), draw)))
    stored = augment_features(fbank.extract(torch.from_numpy(samples())), draw)
    assert direct.shape == stored.shape
    inner = slice(
        23, -3
    )  # at the cuts, windows see silence or mirrored samples instead of the neighbours
    torch.testing.assert_close(stored[inner], direct[inner], atol=2e-3, rtol=0)
    assert (stored[:20] == PADDING_VALUE).all()


def test_gain_on_features_is_additive():
    features = torch.full((30, 80), 2.0)
    louder = augment_features(features, Augmentation(gain_db=10.0))
    torch.testing.assert_close(louder, features + math.log(10))
    assert (features == 2.0).all()


@pytest.mark.parametrize(
    "limits",
    [
        {"max_gain_db": -1.0},
        {"min_crop": 0.0},
        {"min_crop": 1.1},
        {"max_delay": -0.1},
        {"speeds": ()},
        {"speeds": (3.0,)},
    ],
)
def test_impossible_limits_are_refused(limits):
    with pytest.raises(ValueError):
        AugmentConfig(**limits)


@pytest.fixture
def batch():
    lengths = torch.tensor([400, 250, 25])
    features = torch.randn(3, 400, 80)
    for row, length in zip(features, lengths):
        row[length:] = PADDING_VALUE
    return features, lengths


def test_spec_augment_follows_the_global_generator_only(batch):
    transform = SpecAugment(probability=1.0)
    torch.manual_seed(1)
    random.seed(1)
    first = transform(*batch)
    after = torch.get_rng_state()
    torch.manual_seed(1)
    random.seed(2)
    np.random.seed(5)
    state = random.getstate(), np.random.get_state()[1].copy()
    second = transform(*batch)
    assert torch.equal(first, second) and torch.equal(after, torch.get_rng_state())
    assert random.getstate() == state[0] and np.array_equal(np.random.get_state()[1], state[1])
    assert not torch.equal(first, transform(*batch))


def test_spec_augment_masks_valid_frames_and_leaves_padding_and_input(batch):
    features, lengths = batch
    before = features.clone()
    torch.manual_seed(0)
    masked = SpecAugment(probability=1.0, time_warp_factor=0)(features, lengths)
    assert torch.equal(features, before) and masked.shape == features.shape
    for row, original, length in zip(masked, features, lengths):
        assert torch.equal(row[length:], original[length:])
        changed = row[:length] != original[:length]
        assert 0 < changed.float().mean() < 0.9
    assert torch.equal(SpecAugment(probability=0.0)(features, lengths), features)
