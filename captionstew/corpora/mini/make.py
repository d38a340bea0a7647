"""The mini corpus: synthetic sounds of three domains with captions and labels, for demonstrations
and tests.

    make_mini_corpus("data/mini", num_clips=1500, seed=0)

It writes a folder of three sources, `events`, `music` and `voices`, in the form that `read_folder`
reads (`captions.csv`, `metadata.csv`, FLAC at 16 kHz, 1 to 5 s). Captions state what was
synthesised (class, pitch, loudness, number, order, tempo, speaker, mood), in several styles and up
to three per clip. Folds 1 to 5 are balanced; a voice is in one fold only. A clip depends on (seed,
domain, number) alone. Numbers measured on it say that a pipeline works, and nothing else.
"""

import csv
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from tqdm import tqdm

from captionstew.corpora.mini import synthesis
from captionstew.corpora.mini.synthesis import (
    EVENTS,
    INSTRUMENTS,
    LOUDNESS,
    PITCHES,
    VOWELS,
    add,
    normalised,
)
from captionstew.data.audio import SAMPLING_RATE
from captionstew.files import atomic_write
from captionstew.parallel import process_map

NUM_FOLDS = 5
COLUMNS = [
    "file", "domain", "label", "labels", "speaker", "gender", "emotion", "transcript", "instrument",
    "pitch", "tempo", "loudness", "events", "fold",
]  # fmt: skip


@dataclass
class Clip:
    """A synthesised clip: samples (N,), captions, and its row of metadata.csv without `file` and
    `fold`.
    """

    samples: np.ndarray
    captions: list[str]
    labels: dict[str, str] = field(default_factory=dict)


def make_mini_corpus(
    folder: str | os.PathLike,
    num_clips: int = 1500,
    seed: int = 0,
    num_jobs: int = 1,
    progress: bool = True,
) -> Path:
    """Writes the corpus and returns its folder; the same arguments give the same files.

    `num_clips` counts all three domains and must be a multiple of 15, so that domains and folds are
    balanced.
    """
    if num_clips <= 0 or num_clips % (3 * NUM_FOLDS):
        raise ValueError(
            f"num_clips must be a positive multiple of {3 * NUM_FOLDS}, got {num_clips}"
        )
    folder = Path(folder)
    per_domain = num_clips // len(DOMAINS)
    jobs = [(folder, seed, domain, number) for domain in DOMAINS for number in range(per_domain)]
    for domain in DOMAINS:
        (folder / domain / "audio").mkdir(parents=True, exist_ok=True)
    bar = functools.partial(
        tqdm, total=len(jobs), desc="mini corpus", unit="clip", disable=not progress
    )
    rows = list(bar(process_map(_write_clip, jobs, num_jobs)))
    for index, domain in enumerate(DOMAINS):
        part = rows[index * per_domain : (index + 1) * per_domain]
        captions = [[row["file"], caption] for row, texts in part for caption in texts]
        _write_table(folder / domain / "captions.csv", ["file", "caption"], captions)
        labels = [[row.get(name, "") for name in COLUMNS] for row, _ in part]
        _write_table(folder / domain / "metadata.csv", COLUMNS, labels)
    return folder


def make_clip(seed: int, domain: str, number: int) -> Clip:
    """The clip with this number, without touching the disk."""
    rng = np.random.default_rng([seed, list(DOMAINS).index(domain), number])
    clip = DOMAINS[domain](rng, number)
    floor = 10 ** rng.uniform(-4.0, -3.0) * rng.standard_normal(len(clip.samples))
    clip.samples = np.clip(clip.samples + floor, -1.0, 1.0).astype(np.float32)
    return clip


def _write_clip(job: tuple) -> tuple[dict[str, str], list[str]]:
    folder, seed, domain, number = job
    clip = make_clip(seed, domain, number)
    file = f"audio/{domain}_{number:05d}.flac"
    soundfile.write(folder / domain / file, clip.samples, SAMPLING_RATE, subtype="PCM_16")
    fold = str(number % NUM_FOLDS + 1)
    return clip.labels | {"file": file, "fold": fold}, clip.captions


def _write_table(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    with atomic_write(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def _pick(rng: Generator, choices):
    """One of the choices (a dict's keys)."""
    choices = list(choices)
    return choices[int(rng.integers(len(choices)))]


def _captions(rng: Generator, styles: list[str]) -> list[str]:
    """One to three different captions of a clip out of all that could be written."""
    number = int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
    chosen = rng.permutation(len(styles))[:number]
    return [styles[index][0].upper() + styles[index][1:] for index in chosen]


TIMES = {1: "once", 2: "twice", 3: "three times", 5: "five times"}
LOUDLY = {"soft": "softly", "moderate": "at a moderate level", "loud": "loudly"}


def _make_event(rng: Generator, number: int) -> Clip:
    """One class of event, or one after the other."""
    duration = float(rng.uniform(1.5, 4.0))
    loudness, pitch = _pick(rng, LOUDNESS), _pick(rng, PITCHES)
    name = list(EVENTS)[number // NUM_FOLDS % len(EVENTS)]
    second = (
        _pick(rng, [other for other in EVENTS if other != name]) if rng.random() < 0.3 else None
    )
    samples = np.zeros(round(duration * SAMPLING_RATE))
    end = duration / 2 if second else duration
    events, count = _place(rng, samples, name, PITCHES[pitch], 0.0, end)
    if second:
        events += _place(rng, samples, second, PITCHES[pitch], end, duration)[0]
    event = EVENTS[name]
    tuned = f"{pitch}-pitched " if event.pitched else ""
    article, noun = event.noun.split(" ", 1) if " " in event.noun else ("", event.noun)
    thing = f"{'a' if article else ''} {tuned}{noun}".strip()
    times = "" if second else f" {TIMES[count]}" if event.length else " continuously"
    then = f", then {EVENTS[second].noun} {EVENTS[second].verb}" if second else ""
    short = f", {second}" if second else f", {TIMES[count]}" if event.length else ", continuous"
    captions = _captions(
        rng,
        [
            f"{thing} {event.verb}{times}{then}, {LOUDLY[loudness]}.",
            f"{loudness} {tuned}{name}{short}",
            f"the sound of {thing} that {event.verb}{times} {LOUDLY[loudness]}{then}.",
            (
                f"you can hear {thing}{' followed by ' + EVENTS[second].noun if second else times}."
                f" The recording is {loudness} in level and lasts about {round(duration)} seconds."
            ),
        ],
    )
    tags = [name] + ([second] if second else [])
    labels = {
        "domain": "sound_event",
        "label": name,
        "labels": ";".join(tags),
        "loudness": loudness,
    }
    labels["pitch"] = pitch if event.pitched else ""
    labels["events"] = ";".join(
        f"{label}@{onset:.3f}-{offset:.3f}" for label, onset, offset in events
    )
    return Clip(normalised(samples) * LOUDNESS[loudness] * rng.uniform(0.8, 1.2), captions, labels)


def _place(
    rng: Generator, samples: np.ndarray, name: str, pitch: float, start: float, end: float
) -> tuple[list[tuple[str, float, float]], int]:
    """Mixes strokes of an event between `start` and `end` (seconds): ((label, onset, offset) each,
    their number).
    """
    event = EVENTS[name]
    pitch = pitch * rng.uniform(0.92, 1.08)
    if not event.length:
        onset = start + rng.uniform(0.0, 0.1)
        add(samples, normalised(event.make(rng, end - onset, pitch)), onset)
        return [(name, onset, end)], 1
    fitting = [count for count in TIMES if count * event.length * 1.15 < end - start - 0.2] or [1]
    count = _pick(rng, fitting)
    room = (end - start - 0.2) / count
    gap = min(room, event.length * rng.uniform(1.15, 2.5))
    onset = start + rng.uniform(0.02, 0.15)
    placed = []
    for index in range(count):
        begin = onset + index * gap
        stop = min(begin + event.length, end)
        add(samples, normalised(event.make(rng, event.length, pitch)), begin)
        placed.append((name, begin, stop))
    return placed, count


MELODIES = {
    "rising": ([0, 2, 4, 5, 7, 9], "a rising scale"),
    "falling": ([9, 7, 5, 4, 2, 0], "a falling scale"),
    "repeated": ([0, 0, 0, 0, 0, 0], "one note over and over"),
    "arpeggio": ([0, 4, 7, 12, 7, 4], "a broken chord"),
    "leaps": ([0, 12, 0, 12, 0, 12], "wide leaps up and down"),
    "chord": ([0], "a held chord"),
}
TEMPOS = {"slow": 0.55, "moderate": 0.33, "fast": 0.18}  # seconds per note
REGISTERS = {"low": 45, "middle": 60, "high": 76}  # MIDI note of the lowest note
NOTES = ["C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B"]


def _make_music(rng: Generator, number: int) -> Clip:
    """An instrument plays a melody, with or without a drum beat."""
    instrument = list(INSTRUMENTS)[number // NUM_FOLDS % len(INSTRUMENTS)]
    melody, tempo = _pick(rng, MELODIES), _pick(rng, TEMPOS)
    register, loudness = _pick(rng, REGISTERS), _pick(rng, LOUDNESS)
    drums = rng.random() < 0.35
    lowest = REGISTERS[register] + int(rng.integers(8))
    steps, described = MELODIES[melody]
    length = TEMPOS[tempo] if melody != "chord" else 1.6
    onsets = np.arange(len(steps)) * length if melody != "chord" else np.zeros(3)
    steps = steps if melody != "chord" else [0, 4, 7]
    duration = float(onsets[-1] + max(length, 0.4) + rng.uniform(0.1, 0.6))
    samples = np.zeros(round(duration * SAMPLING_RATE))
    for step, onset in zip(steps, onsets):
        pitch = 440.0 * 2 ** ((lowest + step - 69) / 12)
        add(
            samples, normalised(INSTRUMENTS[instrument](rng, max(length, 0.3), pitch)), float(onset)
        )
    if drums:
        samples += 0.7 * synthesis.drum_beat(rng, duration, 2 * TEMPOS[tempo])
    player = f"{'an' if instrument[0] in 'aeiou' else 'a'} {instrument}"
    speed = f"{tempo} " if melody != "chord" else ""
    beat = " over a drum beat" if drums else ""
    note = NOTES[lowest % 12]
    captions = _captions(
        rng,
        [
            f"{player} plays {described} in the {register} register{beat}, {LOUDLY[loudness]}.",
            (
                f"{speed}{instrument}, {register} register,"
                f" {melody}{', drums' if drums else ', no drums'}, {loudness}"
            ),
            f"{speed}{loudness} music: {described} on {note} played by {player}{beat}.",
            (
                f"this is a {register} {instrument} part at a {tempo} tempo. It plays"
                f" {described}{' and drums keep the beat' if drums else ' without accompaniment'};"
                f" the level is {loudness}."
            ),
        ],
    )
    labels = {
        "domain": "music", "label": instrument, "labels": ";".join([instrument,
        melody] + ["drums"] * drums), "instrument": instrument, "pitch": note, "tempo": tempo,
        "loudness": loudness,
    }  # fmt: skip
    return Clip(normalised(samples) * LOUDNESS[loudness] * rng.uniform(0.8, 1.2), captions, labels)


@dataclass(frozen=True)
class Mood:
    """How a mood sounds: syllable (s), pitch factor, pitch slope over the phrase, level, source
    tilt.
    """

    adverb: str
    syllable: float
    pitch: float
    slope: float
    level: float
    tilt: float


MOODS = {
    "calm": Mood("calmly", 0.34, 1.0, 0.0, 0.18, 0.95),
    "happy": Mood("happily", 0.24, 1.25, 0.45, 0.4, 0.9),
    "sad": Mood("sadly", 0.5, 0.85, -0.35, 0.06, 0.97),
    "angry": Mood("angrily", 0.18, 1.1, -0.1, 0.8, 0.6),
}
SPEAKERS = {
    "man": (105.0, 1.0),
    "woman": (200.0, 1.17),
    "child": (300.0, 1.32),
}  # f0 (Hz), vocal tract scale


def _make_voice(rng: Generator, number: int) -> Clip:
    """A speaker says one to four vowels in a mood; the speaker decides the fold (`number` modulo
    5).
    """
    kind = list(SPEAKERS)[number // NUM_FOLDS % len(SPEAKERS)]
    speaker = f"{kind}{number % NUM_FOLDS + 1}"
    own = np.random.default_rng([number % NUM_FOLDS, list(SPEAKERS).index(kind)])
    f0 = SPEAKERS[kind][0] * own.uniform(0.85, 1.18)
    tract = SPEAKERS[kind][1] * own.uniform(0.95, 1.05)
    emotion = list(MOODS)[number // (NUM_FOLDS * len(SPEAKERS)) % len(MOODS)]
    mood = MOODS[emotion]
    words = [_pick(rng, VOWELS) for _ in range(int(rng.integers(1, 5)))]
    syllable = mood.syllable * rng.uniform(0.9, 1.1)
    duration = max(1.0, len(words) * syllable * 1.25 + 0.4)
    samples = np.zeros(round(duration * SAMPLING_RATE))
    for index, word in enumerate(words):
        time = (index + np.linspace(0, 1, round(syllable * SAMPLING_RATE))) / len(words)
        contour = f0 * mood.pitch * (1 + mood.slope * (time - 0.3)) * rng.uniform(0.97, 1.03)
        add(
            samples,
            synthesis.vowel(rng, word, contour, tract, mood.tilt),
            0.15 + index * syllable * 1.25,
        )
    phrase = " ".join(words)
    captions = _captions(
        rng,
        [
            f'a {kind} {mood.adverb} says "{phrase}".',
            (
                f"{kind}'s voice, {emotion}, {len(words)} syllable{'s' if len(words) > 1 else ''}:"
                f" {phrase}"
            ),
            f'a {emotion} {kind} speaks the syllables "{phrase}".',
            (
                f'speech of a {kind} who sounds {emotion}. The words are "{phrase}" and nothing'
                " else is heard."
            ),
        ],
    )
    labels = {
        "domain": "speech", "label": emotion, "labels": f"speech;{kind};{emotion}",
        "speaker": speaker, "gender": kind, "emotion": emotion, "transcript": phrase,
    }  # fmt: skip
    return Clip(normalised(samples) * mood.level * rng.uniform(0.8, 1.2), captions, labels)


DOMAINS: dict[str, Callable[[Generator, int], Clip]] = {
    "events": _make_event,
    "music": _make_music,
    "voices": _make_voice,
}
