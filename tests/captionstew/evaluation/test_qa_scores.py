"""Scores of replies to multiple-choice and open questions."""

import pytest

from captionstew.evaluation.qa_scores import (
    Reply,
    by_task,
    choice_metrics,
    is_right,
    offline_metrics,
    read_replies,
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
    metrics = offline_metrics([said("a dog barks", "A dog barks."), said("rain", "wind"), said("two cats", "two dogs")])
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
