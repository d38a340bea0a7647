"""Parsing and scores equal AIR-Bench's own, and what it leaves open."""

import pytest

from captionstew.evaluation.metrics.airbench import (
    PAPER_CATEGORIES,
    ChoiceScore,
    choice_scores,
    judge_score,
    judge_scores,
    parse_choice,
    parse_ratings,
)


@pytest.fixture
def golden(metric_golden):
    def of_kind(kind):
        cases = [case for case in metric_golden("airbench.json") if case["kind"] == kind]
        assert cases
        return cases

    return of_kind


def test_replies_are_read_as_the_benchmark_does(golden):
    assert [(case["reply"], parse_choice(case["reply"])) for case in golden("reply")] == [
        (case["reply"], case["parsed"]) for case in golden("reply")
    ]


def test_ratings_are_read_as_the_benchmark_does(golden):
    for case in golden("judge_reply"):
        parsed = parse_ratings(case["reply"])
        assert (None if parsed is None else list(parsed)) == case["parsed"], case


def test_foundation_scores_equal_the_benchmarks(golden):
    for case in golden("foundation_file"):
        scores = choice_scores(case["items"])
        assert {
            task: {"answered": score.answered, "correct": score.correct, "accuracy": score.accuracy}
            for task, score in scores.items()
        } == case["tasks"]
        assert sum(score.items - score.answered for score in scores.values()) == case["failed"]


def test_chat_scores_equal_the_benchmarks(golden):
    orders = set()
    for case in golden("chat_file"):
        orders.add(case["order"])
        scores = judge_scores(case["items"], model_first=case["order"] == "model_first")
        assert {
            category: {
                "counted": score.counted,
                "win_rate": score.win_rate,
                "mean_first": score.mean_first,
                "mean_second": score.mean_second,
            }
            for category, score in scores.items()
        } == case["categories"]
        assert sum(score.items - score.counted for score in scores.values()) == case["failed"]
    assert orders == {"model_first", "model_second"}


def test_unread_replies_leave_the_benchmarks_denominator_and_not_the_strict_one():
    items = [
        ("A", "A", "age"),
        ("I cannot tell", "A", "age"),
        ("C.", "B", "age"),
        ("no idea", "D", "age"),
    ]
    score = choice_scores(items)["age"]
    assert score == ChoiceScore(items=4, answered=2, correct=1)
    assert (
        score.accuracy == 0.5
        and score.strict_accuracy == 0.25
        and score.instruction_following_rate == 0.5
    )


def test_a_task_of_failures_only_has_no_accuracy():
    score = choice_scores([("", "A", "age"), ("?", "B", "age")])["age"]
    assert (
        score.accuracy is None
        and score.strict_accuracy == 0.0
        and score.instruction_following_rate == 0.0
    )


def test_answers_that_are_not_letters_raise():
    with pytest.raises(ValueError, match="age: the right answer 'teens' is not"):
        choice_scores([("A", "teens", "age")])


def test_judge_score_is_the_mean_of_both_orders():
    second = judge_scores(
        [("sound_QA", "8 4"), ("sound_QA", "6 7"), ("sound_QA", "none")], model_first=False
    )["sound"]
    first = judge_scores([("sound_QA", "7 7"), ("sound_QA", "5 2")], model_first=True)["sound"]
    assert (second.items, second.counted, second.win_rate, second.mean_second) == (3, 2, 0.5, 5.5)
    assert (first.win_rate, first.mean_first) == (0.5, 6.0)
    assert judge_score(second, first) == 5.75
    nothing = judge_scores([("sound_QA", "")], model_first=False)["sound"]
    assert nothing.win_rate is None and judge_score(nothing, first) is None


def test_tasks_outside_the_categories_raise():
    with pytest.raises(ValueError, match="sound_generation_QA.*belongs to no category"):
        judge_scores(
            [("sound_generation_QA", "1 2")], model_first=False, categories=PAPER_CATEGORIES
        )
