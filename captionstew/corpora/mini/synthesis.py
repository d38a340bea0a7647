"""The sounds of the mini corpus: events, instruments and voices from sines, noise and resonances.

Every function takes the clip's own random generator, so a clip is decided by its seed alone.
Samples are (N,) float64 at 16 kHz with a peak near 1; loudness is set when a clip is put together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy.signal import butter, lfilter, sosfilt

from captionstew.data.audio import SAMPLING_RATE

PITCHES = {"low": 350.0, "medium": 800.0, "high": 1800.0}  # Hz
LOUDNESS = {"soft": 0.04, "moderate": 0.18, "loud": 0.7}  # peak amplitude


def seconds(duration: float) -> np.ndarray:
    """(N,) the sampling instants of `duration` seconds."""
    return np.arange(round(duration * SAMPLING_RATE)) / SAMPLING_RATE


def tone(
    frequency: float | np.ndarray, duration: float, weights: Sequence[float] = (1.0,)
) -> np.ndarray:
    """(N,) harmonics k f with the given weights; `frequency` in Hz, constant or (N,) over time."""
    count = round(duration * SAMPLING_RATE)
    phase = np.cumsum(np.broadcast_to(frequency, count)) * (2 * np.pi / SAMPLING_RATE)
    highest = np.max(frequency)
    kept = [
        (k, weight) for k, weight in enumerate(weights, 1) if k * highest < 0.45 * SAMPLING_RATE
    ]
    return sum((weight * np.sin(k * phase) for k, weight in kept), np.zeros(count))


def noise(rng: Generator, duration: float, low: float, high: float) -> np.ndarray:
    """(N,) Gaussian noise between two frequencies (Hz)."""
    band = butter(2, [low, min(high, 7800.0)], "bandpass", fs=SAMPLING_RATE, output="sos")
    return sosfilt(band, rng.standard_normal(round(duration * SAMPLING_RATE)))


def decay(duration: float, rate: float) -> np.ndarray:
    """(N,) exponential decay by e each 1 / `rate` seconds, with a 2 ms attack."""
    time = seconds(duration)
    return np.exp(-rate * time) * np.minimum(time / 0.002, 1.0)


def faded(samples: np.ndarray, fade: float = 0.02) -> np.ndarray:
    """The samples with linear fades of `fade` seconds at both ends."""
    ramp = np.minimum(seconds(len(samples) / SAMPLING_RATE) / fade, 1.0)
    return samples * ramp * ramp[::-1]


def normalised(samples: np.ndarray) -> np.ndarray:
    """The samples with a peak of 1."""
    return samples / max(np.abs(samples).max(), 1e-9)


def _beep(rng, duration, pitch):
    return faded(tone(pitch, duration), 0.01)


def _chirp(rng, duration, pitch):
    return faded(tone(pitch * 2.5 ** (seconds(duration) / duration), duration))


def _knock(rng, duration, pitch):
    return decay(duration, 45) * (tone(pitch / 4, duration) + 0.3 * noise(rng, duration, 100, 1500))


def _bell(rng, duration, pitch):
    partials = zip((1.0, 2.0, 2.76, 5.4), (1.0, 0.5, 0.6, 0.3), (3.0, 4.0, 6.0, 10.0))
    return sum(
        weight * tone(ratio * pitch, duration) * decay(duration, rate)
        for ratio, weight, rate in partials
    )


def _drop(rng, duration, pitch):
    return decay(duration, 20) * tone(pitch * (1 + 0.8 * seconds(duration) / duration), duration)


def _clap(rng, duration, pitch):
    return decay(duration, 60) * noise(rng, duration, pitch, 3 * pitch)


def _buzz(rng, duration, pitch):
    return faded(tone(pitch / 5, duration, [1 / k for k in range(1, 20)]), 0.01)


def _siren(rng, duration, pitch):
    sweep = 1 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.7, 1.2) * seconds(duration))
    return faded(tone(pitch * sweep, duration, (1.0, 0.3, 0.1)))


def _engine(rng, duration, pitch):
    wobble = 1 + 0.05 * np.sin(2 * np.pi * rng.uniform(3, 6) * seconds(duration))
    motor = tone(pitch / 8 * wobble, duration, [1 / k for k in range(1, 12)])
    return faded(motor + 0.2 * noise(rng, duration, 80, 900))


def _rain(rng, duration, pitch):
    drops = (rng.random(round(duration * SAMPLING_RATE)) < 0.004) * rng.standard_normal(
        round(duration * SAMPLING_RATE)
    )
    return faded(0.5 * noise(rng, duration, 1500, 6000) + 3 * lfilter([1.0], [1.0, -0.7], drops))


def _wind(rng, duration, pitch):
    gusts = 1 + 0.7 * np.sin(
        2 * np.pi * rng.uniform(0.3, 0.8) * seconds(duration) + rng.uniform(0, 6)
    )
    return faded(gusts * noise(rng, duration, 0.3 * pitch, 0.9 * pitch))


def _hiss(rng, duration, pitch):
    return faded(noise(rng, duration, 3000, 7000))


@dataclass(frozen=True)
class Event:
    """A class of sound events: continuous without `length` (seconds of one stroke), `pitched` if it
    can be tuned.
    """

    make: Callable[[Generator, float, float], np.ndarray]
    noun: str
    verb: str
    length: float = 0.0
    pitched: bool = True


EVENTS = {
    "beep": Event(_beep, "a beep", "beeps", 0.25),
    "chirp": Event(_chirp, "a bird-like chirp", "chirps", 0.3),
    "knock": Event(_knock, "a knock on wood", "knocks", 0.15),
    "bell": Event(_bell, "a bell", "rings", 0.9),
    "drop": Event(_drop, "a water drop", "drips", 0.18),
    "clap": Event(_clap, "a hand clap", "claps", 0.15),
    "buzz": Event(_buzz, "a buzzer", "buzzes", 0.4),
    "siren": Event(_siren, "a siren", "wails"),
    "engine": Event(_engine, "an engine", "runs"),
    "rain": Event(_rain, "rain", "patters", pitched=False),
    "wind": Event(_wind, "wind", "blows"),
    "hiss": Event(_hiss, "steam", "hisses", pitched=False),
}


def _flute(rng, duration, pitch):
    vibrato = 1 + 0.008 * np.sin(2 * np.pi * 5.5 * seconds(duration))
    breath = 0.05 * noise(rng, duration, 1000, 5000)
    return faded(tone(pitch * vibrato, duration, (1.0, 0.25, 0.08)) + breath, 0.05)


def _organ(rng, duration, pitch):
    return faded(tone(pitch, duration, (1.0, 0.8, 0.3, 0.6, 0.1, 0.2, 0.1, 0.4)), 0.01)


def _harp(rng, duration, pitch):
    return decay(duration, 6) * tone(pitch, duration, [0.7**k for k in range(8)])


def _piano(rng, duration, pitch):
    struck = tone(pitch, duration, [1 / k**1.3 for k in range(1, 9)]) * decay(duration, 3)
    return faded(struck + 0.1 * noise(rng, duration, 500, 3000) * decay(duration, 80), 0.003)


def _trumpet(rng, duration, pitch):
    bright = np.minimum(seconds(duration) / 0.06, 1.0)
    return faded(
        tone(pitch, duration, (1.0,))
        + bright * tone(pitch, duration, [0.0] + [0.85**k for k in range(9)]),
        0.03,
    )


def _marimba(rng, duration, pitch):
    return decay(duration, 12) * (
        tone(pitch, duration) + 0.4 * tone(3.93 * pitch, duration) * decay(duration, 30)
    )


INSTRUMENTS = {
    "flute": _flute,
    "organ": _organ,
    "harp": _harp,
    "piano": _piano,
    "trumpet": _trumpet,
    "marimba": _marimba,
}


def drum_beat(rng: Generator, duration: float, beat: float) -> np.ndarray:
    """(N,) a kick on every beat (`beat` seconds) and a hi-hat between."""
    samples = np.zeros(round(duration * SAMPLING_RATE))
    kick = decay(0.15, 25) * tone(120 * np.exp(-8 * seconds(0.15)) + 45, 0.15)
    hat = 0.4 * decay(0.08, 70) * noise(rng, 0.08, 5000, 7700)
    for number, onset in enumerate(np.arange(0.0, duration - 0.2, beat / 2)):
        add(samples, hat if number % 2 else kick, onset)
    return samples


# Formants (Hz) of an adult man: Peterson and Barney (1952), rounded.
VOWELS = {
    "ah": (730, 1090, 2440),
    "ee": (270, 2290, 3010),
    "oo": (300, 870, 2240),
    "eh": (530, 1840, 2480),
    "oh": (570, 840, 2410),
}


def vowel(rng: Generator, name: str, f0: np.ndarray, tract: float, tilt: float) -> np.ndarray:
    """(N,) a voiced vowel: a pulse train at `f0` (N,) Hz through three resonances.

    `tract` scales the formants (a shorter vocal tract has higher ones); `tilt` in 0..1 darkens the
    source.
    """
    phase = np.cumsum(f0 * rng.normal(1.0, 0.01, len(f0))) / SAMPLING_RATE
    pulses = np.diff(np.floor(phase), prepend=0.0) + 0.005 * rng.standard_normal(len(f0))
    samples = lfilter([1.0], [1.0, -tilt], pulses)
    for formant, width in zip(VOWELS[name], (80, 110, 160)):
        radius = np.exp(-np.pi * width / SAMPLING_RATE)
        angle = 2 * np.pi * min(formant * tract, 7000.0) / SAMPLING_RATE
        samples = lfilter([1 - radius], [1.0, -2 * radius * np.cos(angle), radius**2], samples)
    return faded(normalised(samples), 0.03)


def add(samples: np.ndarray, part: np.ndarray, onset: float) -> None:
    """Mixes `part` into `samples` at `onset` seconds; what does not fit is cut off."""
    start = round(onset * SAMPLING_RATE)
    end = min(len(samples), start + len(part))
    samples[start:end] += part[: end - start]
