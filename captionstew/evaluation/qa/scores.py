"""Replies of a model to questions about clips, and their scores."""

import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captionstew.data.batches.captioned import Batch
from captionstew.data.batches.questions import QaItem
from captionstew.distributed import sum_over_ranks
from captionstew.evaluation.metrics.airbench import (
    ChoiceScore,
    JudgeScore,
    choice_scores,
    judge_score,
    judge_scores,
    parse_choice,
    parse_ratings,
)
from captionstew.evaluation.metrics.bootstrap import bootstrap_interval
from captionstew.evaluation.metrics.caption_scores import rouge_l_per_clip
from captionstew.files import atomic_write, parse_json
from captionstew.models.qa import AudioAdaptor, FrozenLanguageModel
from captionstew.models.qa_prompt import target_text

FOLLOWING_WANTED = 0.99  # paper section 4.2: instruction following above 99 %


@dataclass(frozen=True)
class Reply:
    """A question, its right answer and what the model said."""

    item: str
    task: str
    dataset: str
    question: str
    choices: list[str]
    answer: str
    description: str
    reply: str


def answer_questions(
    adaptor: AudioAdaptor,
    llm: FrozenLanguageModel,
    batches: Iterable[Batch],
    device: torch.device,
    max_tokens: int,
) -> Iterator[Reply]:
    """Replies to every question, batch by batch."""
    for batch in batches:
        if not batch["cut_ids"]:
            continue
        audio, lengths = adaptor(batch["features"].to(device), batch["feature_lengths"].to(device))
        texts = llm.generate(audio, lengths, batch["question_ids"], max_tokens)
        for item, text in zip(batch["items"], texts, strict=True):
            yield make_reply(item, text)


def make_reply(item: QaItem, text: str) -> Reply:
    """What the model said to a question."""
    values = item._asdict()
    return Reply(
        **{entry.name: values[entry.name] for entry in fields(Reply) if entry.name != "reply"},
        reply=text,
    )


def write_replies(path: Path, replies: Iterable[Reply]) -> int:
    """JSON lines, complete or not at all; returns their number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with atomic_write(path, "w", encoding="utf-8") as file:
        for reply in replies:
            file.write(json.dumps(asdict(reply), ensure_ascii=False) + "\n")
            count += 1
    return count


def read_replies(path: Path) -> list[Reply]:
    """Raises ValueError for a line that is no reply, FileNotFoundError for no file."""
    replies = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                replies.append(Reply(**parse_json(line)))
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{path}: line {number} is not a reply ({error}); run decode.py again"
                ) from error
    return replies


def by_task(replies: Iterable[Reply]) -> dict[str, list[Reply]]:
    """Replies of each task, tasks in alphabetical order."""
    grouped: dict[str, list[Reply]] = defaultdict(list)
    for reply in replies:
        grouped[reply.task].append(reply)
    return dict(sorted(grouped.items()))


def choice_metrics(replies: Sequence[Reply], seed: int = 0) -> dict[str, Any]:
    """Scores of one task's multiple-choice replies.

    accuracy (of the replies that AIR-Bench's rule can read; absent if there are none),
    strict_accuracy (the others count as wrong), instruction_following_rate, chance, and the
    accuracy of every dataset.
    """
    scores = choice_scores((reply.reply, _letter(reply), reply.dataset) for reply in replies)
    total = ChoiceScore(
        sum(score.items for score in scores.values()),
        sum(score.answered for score in scores.values()),
        sum(score.correct for score in scores.values()),
    )
    right = np.array(
        [parse_choice(reply.reply) == _letter(reply) for reply in replies], dtype=np.float64
    )
    read = np.array([parse_choice(reply.reply) is not None for reply in replies])
    metrics: dict[str, Any] = {
        "strict_accuracy": total.strict_accuracy,
        "strict_accuracy_interval": bootstrap_interval(right, seed=seed),
        "instruction_following_rate": total.instruction_following_rate,
        "chance": float(np.mean([1 / len(reply.choices) for reply in replies])),
    }
    if read.any():
        metrics = {
            "accuracy": total.accuracy,
            "accuracy_interval": bootstrap_interval(right[read], seed=seed),
        } | metrics
    for dataset, score in sorted(scores.items()):
        if score.accuracy is not None and len(scores) > 1:
            metrics[f"accuracy_{dataset}"] = score.accuracy
    return metrics


def _letter(reply: Reply) -> str:
    return target_text(reply.answer, reply.choices)


def offline_metrics(replies: Sequence[Reply], seed: int = 0) -> dict[str, Any]:
    """Scores of open answers without a judge: exact_match (case, punctuation and articles aside)
    and ROUGE-L.
    """
    match = np.array(
        [_plain(reply.reply) == _plain(reply.answer) for reply in replies], dtype=np.float64
    )
    rouge = rouge_l_per_clip(
        [reply.reply for reply in replies], [[reply.answer] for reply in replies]
    )
    return {
        "exact_match": float(match.mean()),
        "exact_match_interval": bootstrap_interval(match, seed=seed),
        "rouge_l": float(rouge.mean()),
        "rouge_l_interval": bootstrap_interval(rouge, seed=seed),
    }


def _plain(text: str) -> str:
    words = re.findall(r"\w+", text.lower())
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def judged_metrics(
    replies: Sequence[Reply], ratings: Mapping[tuple[str, str], str], seed: int = 0
) -> dict[str, Any]:
    """Scores of one task from the judge's replies, by AIR-Bench's rules; `ratings` by (item, order
    of the answers).

    judge_score is the mean of the model's mean ratings in both orders, its interval a bootstrap
    over the items rated in both; replies that cannot be read are left out and counted.

    Raises:
      ValueError: in one order no reply of the judge can be read.
    """
    second, first = (
        _in_order(replies, ratings, order) for order in ("model_second", "model_first")
    )
    score = judge_score(second, first)
    if (
        score is None
        or second.mean_first is None
        or first.mean_second is None
        or second.win_rate is None
        or first.win_rate is None
    ):
        raise ValueError(
            f"{replies[0].task}: no reply of the judge is two numbers; look at them, and at"
            " --judge-model"
        )
    pairs = [_both_ratings(ratings, reply.item) for reply in replies]
    both = np.array([pair for pair in pairs if pair is not None])
    counted = second.counted + first.counted
    return {
        "judge_score": score,
        "judge_score_interval": bootstrap_interval(both, seed=seed) if len(both) else None,
        "reference_score": (second.mean_first + first.mean_second) / 2,
        "win_rate": (second.win_rate * second.counted + first.win_rate * first.counted) / counted,
        "judge_score_model_second": second.mean_second,
        "judge_score_model_first": first.mean_first,
        "rated_share": counted / (2 * len(replies)),
    }


def _in_order(
    replies: Sequence[Reply], ratings: Mapping[tuple[str, str], str], order: str
) -> JudgeScore:
    """Scores of one task's replies for one order of the answers."""
    task = replies[0].task
    said = ((task, ratings[reply.item, order]) for reply in replies)
    return judge_scores(said, order == "model_first", {task: task})[task]


def _both_ratings(ratings: Mapping[tuple[str, str], str], item: str) -> float | None:
    """The model's mean rating over both orders, or None if one cannot be read."""
    second = parse_ratings(ratings[item, "model_second"])
    first = parse_ratings(ratings[item, "model_first"])
    return None if second is None or first is None else (second[1] + first[0]) / 2


@torch.no_grad()
def validation_metrics(
    adaptor: AudioAdaptor,
    llm: FrozenLanguageModel,
    batches: Iterable[Batch],
    device: torch.device,
    max_tokens: int,
    max_answered: int,
) -> tuple[dict[str, float], list[Reply]]:
    """Metrics of the validation questions of all processes, and this process's replies.

    The mean loss; and of the first `max_answered` questions of each process the share of right
    answers and, where choices are given, of replies that follow the instruction.
    """
    replies: list[Reply] = []
    sums = dict.fromkeys(
        ("questions", "loss", "answered", "right", "with_choices", "followed"), 0.0
    )
    for batch in batches:
        if not batch["cut_ids"]:
            continue
        audio, lengths = adaptor(batch["features"].to(device), batch["feature_lengths"].to(device))
        losses = llm.answer_losses(audio, lengths, batch["question_ids"], batch["answer_ids"])
        sums["questions"] += len(losses)
        sums["loss"] += float(losses.sum())
        if len(replies) < max_answered:
            texts = llm.generate(audio, lengths, batch["question_ids"], max_tokens)
            replies += map(make_reply, batch["items"], texts)
    with_choices = [reply for reply in replies if reply.choices]
    sums |= {
        "answered": len(replies),
        "right": sum(map(is_right, replies)),
        "with_choices": len(with_choices),
    }
    sums["followed"] = sum(parse_choice(reply.reply) is not None for reply in with_choices)
    sums = dict(zip(sums, sum_over_ranks(list(sums.values()), device)))
    metrics = {"loss": sums["loss"] / max(sums["questions"], 1)}
    if sums["answered"]:
        metrics["right_answers"] = sums["right"] / sums["answered"]
    if sums["with_choices"]:
        metrics["instruction_following_rate"] = sums["followed"] / sums["with_choices"]
        if metrics["instruction_following_rate"] < FOLLOWING_WANTED:
            logging.warning(
                "%.1f %% of the replies to multiple-choice questions can be read, wanted are"
                " %.0f %%",
                100 * metrics["instruction_following_rate"],
                100 * FOLLOWING_WANTED,
            )
    return metrics, replies


def is_right(reply: Reply) -> bool:
    """The right letter, or for an open question the right words."""
    if reply.choices:
        return parse_choice(reply.reply) == _letter(reply)
    return _plain(reply.reply) == _plain(reply.answer)
