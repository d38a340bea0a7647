"""Reply parsing and scores of AIR-Bench (Yang et al. 2024), by the benchmark's own rules, and
stricter beside them.

Foundation tasks are multiple choice. The benchmark leaves replies without a readable letter out of
the denominator, so a model that seldom answers can score high; `strict_accuracy` counts them as
wrong, and `instruction_following_rate` is the share that was read. Chat tasks are rated by a judge,
which sees the model's answer and the reference's in both orders and replies with two numbers.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CHOICES = "ABCD"
HIGHEST_RATING = 10
# The benchmark joins question answering and generation; the paper's 400 items are `sound_QA` and
# `music_QA` alone.
CHAT_CATEGORIES = {
    "speech_QA": "speech",
    "speech_dialogue_QA": "speech",
    "sound_QA": "sound",
    "sound_generation_QA": "sound",
    "music_QA": "music",
    "music_generation_analysis_QA": "music",
    "speech_and_sound_QA": "speech_and_sound",
    "speech_and_music_QA": "speech_and_music",
}
PAPER_CATEGORIES = {"sound_QA": "sound", "music_QA": "music"}


@dataclass(frozen=True)
class ChoiceScore:
    """Counts of one multiple-choice task."""

    items: int = 0
    answered: int = 0
    correct: int = 0

    @property
    def accuracy(self) -> float | None:
        """Of the answered items, as the benchmark prints it; None where nothing was answered."""
        return self.correct / self.answered if self.answered else None

    @property
    def strict_accuracy(self) -> float | None:
        return self.correct / self.items if self.items else None

    @property
    def instruction_following_rate(self) -> float | None:
        return self.answered / self.items if self.items else None

    def add(self, choice: str | None, answer: str) -> "ChoiceScore":
        return ChoiceScore(
            self.items + 1,
            self.answered + (choice is not None),
            self.correct + (choice is not None and choice == answer),
        )


@dataclass(frozen=True)
class JudgeScore:
    """Ratings of one chat category, for one order of the two answers."""

    items: int
    counted: int  # replies of the judge that were read
    win_rate: float | None  # share of counted items in which the model is rated above the reference
    mean_first: float | None  # rating of the assistant that the judge saw first
    mean_second: float | None


def parse_choice(reply: str) -> str | None:
    """The letter of a reply, or None.

    The first character if it is one of A B C D, else the last but one (`The answer is A.`). So
    `Dog` is D and `The answer is B` nothing: that is the benchmark's rule.
    """
    text = reply.strip().replace("\n", "")
    for char in (text[:1], text[-2:-1]):
        if char and char in CHOICES:
            return char
    return None


def choice_scores(items: Iterable[tuple[str, str, str]]) -> dict[str, ChoiceScore]:
    """(reply, letter of the right choice, task) of every item -> scores by task.

    Raises:
      ValueError: an answer is not one of A B C D.
    """
    scores: dict[str, ChoiceScore] = defaultdict(ChoiceScore)
    for reply, answer, task in items:
        if len(answer) != 1 or answer not in CHOICES:
            raise ValueError(
                f"{task}: the right answer {answer!r} is not one of the letters {CHOICES}"
            )
        scores[task] = scores[task].add(parse_choice(reply), answer)
    return dict(scores)


def parse_ratings(reply: str) -> tuple[int, int] | None:
    """The two ratings of a judge's reply, or None unless it is two integers of at most 10 with one
    blank between.
    """
    words = reply.strip().replace("\n", "").split(" ")
    try:
        first, second = (int(word) for word in words)
    except ValueError:
        return None
    return (first, second) if max(first, second) <= HIGHEST_RATING else None


def judge_scores(
    items: Iterable[tuple[str, str]],
    model_first: bool,
    categories: Mapping[str, str] = CHAT_CATEGORIES,
) -> dict[str, JudgeScore]:
    """(task name, judge's reply) of every item -> scores by category, for one order of the answers.

    Args:
      model_first: the judge saw the model's answer first, the reference second.

    Raises:
      ValueError: a task that belongs to no category.
    """
    ratings: dict[str, list[tuple[int, int] | None]] = defaultdict(list)
    for task, reply in items:
        if task not in categories:
            raise ValueError(
                f"task {task!r} belongs to no category; known are {', '.join(categories)}"
            )
        ratings[categories[task]].append(parse_ratings(reply))
    return {category: _judge_score(replies, model_first) for category, replies in ratings.items()}


def _judge_score(replies: list[tuple[int, int] | None], model_first: bool) -> JudgeScore:
    counted = [pair for pair in replies if pair is not None]
    if not counted:
        return JudgeScore(len(replies), 0, None, None, None)
    wins = sum(first > second if model_first else second > first for first, second in counted)
    first, second = (sum(column) / len(counted) for column in zip(*counted))
    return JudgeScore(len(replies), len(counted), wins / len(counted), first, second)


def judge_score(model_second: JudgeScore, model_first: JudgeScore) -> float | None:
    """The model's score (at most 10): the mean of its mean ratings in both orders; None if an order
    has no rating.
    """
    if model_second.mean_second is None or model_first.mean_first is None:
        return None
    return (model_second.mean_second + model_first.mean_first) / 2
