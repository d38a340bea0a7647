"""Our prompt, one's own, and the one that is read out of a copy of the benchmark."""

import pytest

from captionstew.errors import UserError
from captionstew.evaluation.qa.judge import judge_requests
from captionstew.evaluation.qa.judge_prompt import judge_prompt
from captionstew.evaluation.qa.scores import Reply

REPLY = Reply("q1", "qa_sound", "x", "What is it?", [], "a dog", "a recording", "a cat")
SCRIPT = """
import argparse, never_installed
open("it_ran", "w")
def build():
    ask = ("Two answers, $5.\\n[Detailed Audio Description]\\nXAudioX\\n"
           "[Question]\\nXQuestionX\\n1: XAssistant1X\\n2: XAssistant2X")
    return ask.replace("XAudioX", meta).replace("XQuestionX", question).replace(
        "XAssistant1X", FIRST).replace("XAssistant2X", SECOND)
parser = argparse.ArgumentParser(description="judge")
parser.add_argument("-n", "--num-workers", type=int, default=50)
parser.add_argument("-m", "--model-name", default="gpt-4")
parser.add_argument("-t", "--temperature", type=float, default=1.0)
parser.add_argument("--max-tokens", type=int, default=1024)
"""
RIGHT = SCRIPT.replace("FIRST", "answer_gt").replace("SECOND", "response")


def test_our_prompt_has_the_benchmarks_sections():
    prompt = judge_prompt("ours")
    for part in (
        "[Detailed Audio Description]",
        "[Question]",
        "[The Start of Assistant 1s Answer]",
        "[System]",
    ):
        assert part in prompt.template.template
    assert (prompt.name, prompt.temperature) == ("ours", 0.0)


def test_own_prompts_are_checked(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("For $$1: $description $question $first $second")
    prompt = judge_prompt(str(path))
    assert prompt.name == "prompt.txt"
    assert judge_requests([REPLY], prompt.template)[0].prompt == (
        "For $1: a recording What is it? a dog a cat"
    )
    for text in (
        "$description $question $first",
        "$description $question $first $second $more",
        "$ $first",
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match="a prompt has exactly"):
            judge_prompt(str(path))


def test_the_benchmarks_own_prompt_is_read_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "score_chat.py").write_text(RIGHT)
    prompt = judge_prompt("airbench", tmp_path)
    assert (prompt.name, prompt.temperature, prompt.max_tokens) == ("airbench", 1.0, 1024)
    first, second = judge_requests([REPLY], prompt.template)
    assert first.prompt == (
        "Two answers, $5.\n[Detailed Audio Description]\na recording\n"
        "[Question]\nWhat is it?\n1: a dog\n2: a cat"
    )
    assert second.prompt.endswith("1: a cat\n2: a dog")
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize(
    "script",
    [
        "",
        "{",
        "\0",
        SCRIPT.replace("FIRST", "response").replace("SECOND", "answer_gt"),
        RIGHT.replace("XQuestionX", "XAskedX"),
        RIGHT.replace("--temperature", "--heat"),
    ],
)
def test_another_script_is_refused_with_the_way_out(tmp_path, script):
    (tmp_path / "score_chat.py").write_text(script)
    with pytest.raises(UserError, match="score_chat.py"):
        judge_prompt("airbench", tmp_path)


def test_a_copy_of_the_benchmark_is_needed(tmp_path):
    with pytest.raises(UserError, match="needs --airbench-dir"):
        judge_prompt("airbench")
    with pytest.raises(UserError, match="is not there"):
        judge_prompt("airbench", tmp_path)
