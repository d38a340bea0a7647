"""Questions about speakers from fixed templates, balanced over attributes, labels and corpora.

    for question in speaker_questions(clips, total=160_000, seed=42): ...

`total` is shared out evenly over emotion, gender and age; the share of an attribute over its
labels, and that of a label over the corpora that have it. Who has too few clips gives what is left
to the others (`shares`). A clip is asked about one attribute at most `max_repeats` times, in other
words each time; half of the questions are open, half offer choices, among which the place of the
right one is uniform.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from captionstew.corpora.speaker_clip import AGES, EMOTIONS, GENDERS, SpeakerClip
from captionstew.hashing import stable_hash

LABELS = {"emotion": EMOTIONS, "gender": GENDERS, "age": AGES}
OPEN = {
    "emotion": (
        "What emotion does the speaker express?",
        "How does the person who is talking feel?",
        "Name the emotion in this voice.",
        "In one word, what mood is the speaker in?",
    ),
    "gender": (
        "Is this voice male or female?",
        "What is the gender of the speaker?",
        "Who is talking, a male or a female speaker?",
        "Tell me the speaker's gender.",
    ),
    "age": (
        "How old does the speaker sound?",
        "What is the age range of this voice?",
        "Estimate the speaker's age in decades.",
        "In which decades of life is the person who is talking?",
    ),
}
CHOICE = {
    "emotion": (
        "Which emotion fits the voice in this recording best?",
        "What is the feeling behind these words?",
        "Pick the emotion that the speaker shows.",
        "Which of these moods do you hear in the speech?",
    ),
    "gender": (
        "Which gender does the speaker have?",
        "To whom does this voice belong?",
        "Pick the gender of the person who is talking.",
        "Which of the two describes the speaker?",
    ),
    "age": (
        "Which age range fits the speaker's voice best?",
        "Between which ages would you place this voice?",
        "Pick the speaker's age group.",
        "Which of these age groups does the person sound like?",
    ),
}
MAX_REPEATS = min(len(texts) for forms in (OPEN, CHOICE) for texts in forms.values())
NUM_CHOICES = 4


@dataclass(frozen=True)
class SpeakerQuestion:
    """One question about a clip; `choices` is empty for an open question. `repeat` counts from
    0.
    """

    clip: SpeakerClip
    attribute: str
    question: str
    answer: str
    choices: tuple[str, ...]
    repeat: int


def shares(total: int, capacities: Sequence[int]) -> list[int]:
    """Whole numbers, as even as the capacities allow, whose sum is `total` or all there is.

    >>> shares(10, [1, 20, 20])
    [1, 5, 4]
    """
    result = [0] * len(capacities)
    left = min(total, sum(capacities))
    while left:
        hungry = [place for place, capacity in enumerate(capacities) if capacity > result[place]]
        each, extra = divmod(left, len(hungry))
        for order, place in enumerate(hungry):
            given = min(each + (order < extra), capacities[place] - result[place])
            result[place] += given
            left -= given
    return result


def speaker_questions(
    clips: Sequence[SpeakerClip], total: int, seed: int, max_repeats: int = MAX_REPEATS
) -> Iterator[SpeakerQuestion]:
    """`total` questions, or as many as the clips allow; the same clips and seed give the same ones.

    Raises ValueError if `max_repeats` is not 1 to MAX_REPEATS (there are no more wordings).
    """
    if not 1 <= max_repeats <= MAX_REPEATS:
        raise ValueError(
            f"a clip can be asked about one thing 1 to {MAX_REPEATS} times, not {max_repeats}"
        )
    pools = {attribute: _pools(clips, attribute) for attribute in LABELS}
    capacity = {attribute: _count(pools[attribute]) * max_repeats for attribute in LABELS}
    for attribute, amount in zip(LABELS, shares(total, list(capacity.values()))):
        by_label = pools[attribute]
        amounts = shares(
            amount, [_count({label: pool}) * max_repeats for label, pool in by_label.items()]
        )
        for (label, by_corpus), for_label in zip(by_label.items(), amounts):
            counts = shares(for_label, [len(pool) * max_repeats for pool in by_corpus.values()])
            for (corpus, pool), count in zip(by_corpus.items(), counts):
                known = [other for other, having in by_label.items() if corpus in having]
                yield from _ask(pool, attribute, label, count, seed, known)


Pools = dict[str, dict[str, list[SpeakerClip]]]  # label -> corpus -> clips


def _pools(clips: Sequence[SpeakerClip], attribute: str) -> Pools:
    pools: Pools = {label: {} for label in LABELS[attribute]}
    for clip in clips:
        if (label := clip.label(attribute)) is not None:
            pools[label].setdefault(clip.corpus, []).append(clip)
    return pools


def _count(pools: Pools) -> int:
    return sum(len(pool) for by_corpus in pools.values() for pool in by_corpus.values())


def _ask(
    pool: Sequence[SpeakerClip],
    attribute: str,
    label: str,
    count: int,
    seed: int,
    known: Sequence[str],
) -> Iterator[SpeakerQuestion]:
    """`count` questions with one right answer: every clip of the shuffled pool once, then once
    more, ...

    Wrong choices are among the labels that the corpus has (`known`): `calm` beside `neutral` would
    be a riddle.
    """
    order = sorted(pool, key=lambda clip: stable_hash(seed, "order", attribute, clip.audio_key))
    if len(known) < 2:
        known = LABELS[attribute]
    for number in range(count):
        repeat, place = divmod(number, len(order))
        clip = order[place]
        draw = random.Random(stable_hash(seed, "wording", attribute, clip.audio_key))
        wordings = draw.sample(range(MAX_REPEATS), MAX_REPEATS)
        with_choices = (repeat + place) % 2 == 1
        forms = (CHOICE if with_choices else OPEN)[attribute]
        choices = _choices(label, known, clip, attribute, seed, repeat) if with_choices else ()
        yield SpeakerQuestion(clip, attribute, forms[wordings[repeat]], label, choices, repeat)


def _choices(
    label: str, known: Sequence[str], clip: SpeakerClip, attribute: str, seed: int, repeat: int
) -> tuple[str, ...]:
    """The right answer among up to three others, in a random order."""
    draw = random.Random(stable_hash(seed, "choices", attribute, clip.audio_key, repeat))
    others = [other for other in known if other != label]
    chosen = [label, *draw.sample(others, min(NUM_CHOICES - 1, len(others)))]
    draw.shuffle(chosen)
    return tuple(chosen)
