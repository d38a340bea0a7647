"""Scores of replies to multiple-choice and open questions."""

import pytest
import torch

from captionstew.data.batches.questions import QaItem
from captionstew.evaluation.qa.scores import (
    Reply,
    by_task,
    choice_metrics,
    is_right,
    offline_metrics,
    read_replies,
    validation_metrics,
    write_replies,
)


def chosen(answer, reply, dataset="meld", choices=("angry", "happy", "sad")):
    return Reply("i", "qa_emotion", dataset, "How?", list(choices), answer, "", reply)


def said(answer, reply, task="qa_sound"):
    return Reply("i", task, "clotho", "What?", [], answer, "", reply)


def test_unreadable_replies_are_left_out_or_wrong():
    replies = [
        chosen("angry", "A"),
        chosen("happy", "The answer is B."),
        chosen("sad", "A. angry"),
        chosen("happy", "happy", dataset="iemocap"),
    ]
    metrics = choice_metrics(replies)
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["strict_accuracy"] == pytest.approx(2 / 4)
    assert metrics["instruction_following_rate"] == pytest.approx(3 / 4)
    assert metrics["chance"] == pytest.approx(1 / 3)
    assert metrics["accuracy_meld"] == pytest.approx(2 / 3) and "accuracy_iemocap" not in metrics
    low, high = metrics["strict_accuracy_interval"]
    assert 0 <= low < 0.5 < high <= 1


def test_nothing_readable_has_no_accuracy():
    metrics = choice_metrics([chosen("angry", "I cannot say")] * 3)
    assert "accuracy" not in metrics
    assert metrics["strict_accuracy"] == 0 and metrics["instruction_following_rate"] == 0


def test_letters_are_those_of_the_choices():
    assert is_right(chosen("sad", "C")) and not is_right(chosen("sad", "B"))
    assert is_right(said("a dog", "The dog.")) and not is_right(said("a dog", "two dogs"))


def test_offline_scores():
    metrics = offline_metrics(
        [said("a dog barks", "A dog barks."), said("rain", "wind"), said("two cats", "two dogs")]
    )
    assert metrics["exact_match"] == pytest.approx(1 / 3)
    assert 0.4 < metrics["rouge_l"] < 0.6
    assert metrics["rouge_l_interval"][0] <= metrics["rouge_l"] <= metrics["rouge_l_interval"][1]


def test_empty_replies_are_scored(tmp_path):
    assert offline_metrics([said("rain", "")])["exact_match"] == 0


def test_replies_survive_the_disk(tmp_path):
    replies = [said("a\u2028dog", 'says "x"\n'), chosen("sad", "")]
    assert write_replies(tmp_path / "a" / "chat.jsonl", replies) == 2
    assert read_replies(tmp_path / "a" / "chat.jsonl") == replies
    assert list(by_task(replies)) == ["qa_emotion", "qa_sound"]
    with open(tmp_path / "a" / "chat.jsonl", "a") as file:
        file.write("{}\n")
    with pytest.raises(ValueError, match="line 3 is not a reply"):
        read_replies(tmp_path / "a" / "chat.jsonl")


class Parrot:
    """Says what is written down; every answer costs 2."""

    def __init__(self, said):
        self.said = list(said)

    def answer_losses(self, audio, lengths, questions, answers):
        return torch.full((len(questions),), 2.0)

    def generate(self, audio, lengths, questions, max_tokens):
        return [self.said.pop(0) for _ in questions]


def batch_of(*items):
    return {
        "cut_ids": [item.item for item in items], "items": items,
        "features": torch.zeros(len(items), 2, 3), "feature_lengths": torch.full((len(items), ), 2),
        "question_ids": [[1]] * len(items), "answer_ids": [[2]] * len(items),
    }  # fmt: skip


def test_validation_watches_whether_the_instruction_is_followed(caplog):
    with_choices = QaItem("a", "c", "qa_emotion", "d", "How?", ["sad", "happy"], "happy", "", 1.0)
    without = QaItem("b", "c", "qa_sound", "d", "What?", [], "a dog", "", 1.0)
    batches = [
        batch_of(with_choices, with_choices),
        {"cut_ids": []},
        batch_of(without, with_choices),
        batch_of(without),
    ]
    parrot = Parrot(["B", "happy", "Dog!", "A"])
    metrics, replies = validation_metrics(
        lambda frames, lengths: (frames, lengths),
        parrot,
        batches,
        torch.device("cpu"),
        5,
        max_answered=3,
    )
    assert metrics == {
        "loss": 2.0,
        "right_answers": 2 / 4,
        "instruction_following_rate": pytest.approx(2 / 3),
    }
    assert [reply.reply for reply in replies] == ["B", "happy", "Dog!", "A"] and not parrot.said
    assert "66.7 % of the replies" in caplog.text
