"""One resampler: its stored reference, tones, and rates without a common divisor."""

import math
from pathlib import Path

import numpy as np
import pytest

from captionstew.data.resampling import _resample_by_phases, one_thread, resample


def sine(frequency, rate, duration=1.0):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * duration)) / rate)).astype(
        np.float32
    )


REFERENCE = Path(__file__).with_name("resampler_reference.npz")


def reference_signal(rate):
    """Tone, chirp up to 0.45 of the rate and seeded noise: 0.2 s."""
    time = np.arange(rate // 5) / rate
    chirp = np.sin(2 * np.pi * (100 * time + 0.5 * 0.45 * rate / 0.2 * time**2))
    noise = np.random.default_rng(rate).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * 440 * time) + 0.3 * chirp + 0.05 * noise).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 96000])
def test_resampler_equals_its_stored_reference(rate):
    stored = np.load(REFERENCE)[str(rate)]
    assert np.abs(resample(reference_signal(rate), rate, 16000) - stored).max() < 2e-6


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_resampler_keeps_a_tone_and_removes_what_would_alias(rate):
    kept = resample(sine(1000, rate), rate, 16000)[100:-100]
    assert np.abs(kept - sine(1000, 16000)[100:-100]).max() < 2e-3
    removed = resample(sine(10000, rate), rate, 16000)[100:-100]
    assert np.abs(removed).max() < 5e-3


def test_resampling_does_not_depend_on_the_number_of_threads():
    import torch

    samples = reference_signal(44100)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(resample(samples, 14400, 16000))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert all(np.array_equal(results[0], result) for result in results)


def test_one_thread_restores_the_number_after_an_error():
    import torch

    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), one_thread():
        assert torch.get_num_threads() == 1
        raise RuntimeError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "source, target",
    [(44100, 16000), (48000, 16000), (8000, 16000), (384000, 16000), (1000, 16000), (22050, 24000)],
)
def test_phase_by_phase_is_the_same_sinc(source, target):
    samples = reference_signal(source)
    divisor = math.gcd(source, target)
    found = _resample_by_phases(samples, source // divisor, target // divisor)
    expected = resample(samples, source, target)
    assert found.shape == expected.shape and found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-5  # lhotse rounds its phases to float32


@pytest.mark.parametrize("rate", [1009, 11111, 44101, 47999, 96001, 383987])
@pytest.mark.parametrize("target", [16000, 24000])
def test_odd_rates_keep_a_tone(rate, target):
    found = resample(sine(200, rate, 2.0), rate, target)
    assert len(found) == 2 * target
    error = np.abs(found - sine(200, target, 2.0))[target // 20 : -target // 20]
    assert error.max() < 1e-3 * 0.5


def test_an_odd_rate_does_not_drift():
    """After a minute a tone is where it would be without any rounding of the rates."""
    found = resample(sine(1000, 11111, 60.0), 11111, 16000)
    assert np.abs(found - sine(1000, 16000, 60.0))[-8000:-100].max() < 1e-3


def test_odd_rates_remove_what_would_alias():
    removed = resample(sine(10000, 44101), 44101, 16000)[100:-100]
    assert np.abs(removed).max() < 5e-3
