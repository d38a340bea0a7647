#!/usr/bin/env python3
"""Scores the replies that decode.py wrote.

    ./score.py --exp-dir exp/qa/contrastive

Multiple-choice tasks (emotion, gender, age): accuracy by AIR-Bench's rule, which leaves unreadable
replies out, strict accuracy, which counts them as wrong, and the share that can be read. Open tasks
(sound, music): exact match and ROUGE-L, labelled `offline`, and with a judge (any endpoint of
OpenAI's protocol, its key in OPENAI_API_KEY) the study's score:

    ./score.py --exp-dir exp/qa/contrastive --judge-base-url https://api.openai.com/v1 \\
        --judge-model gpt-4o

says what that would take; --judge-send true sends the questions. A run that ends early goes on
where it was. Writes <exp-dir>/results/qa_<task>-<split>[-offline|-judge].json,
<exp-dir>/judge/<split>.jsonl, and when the answers of all splits are scored <exp-dir>/scored.done,
which decode.py takes away.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captionstew.errors import run_main
from captionstew.evaluation.qa import scores as qa_scores
from captionstew.evaluation.qa.judge import Endpoint, ask_all, estimate, judge_requests
from captionstew.evaluation.qa.judge_prompt import OURS, JudgePrompt, judge_prompt
from captionstew.evaluation.qa.reply_store import open_store
from captionstew.evaluation.qa.scores import Reply
from captionstew.evaluation.results import write_result
from captionstew.flags import flag, parse_flags
from captionstew.hashing import hash_of, sha256_of_file


@dataclass(frozen=True)
class Flags:
    exp_dir: Path = flag(Path("exp"), "folder of the training run, with answers/ in it")
    splits: str = flag("", "comma-separated; default: all that have answers")
    judge_base_url: str = flag("", "endpoint of the judge, up to and without /chat/completions")
    judge_model: str = flag(
        "", "name of the judging model at that endpoint", only_with="judge_base_url"
    )
    judge_send: bool = flag(
        False,
        "send the questions; without it only an estimate is printed",
        only_with="judge_base_url",
    )
    judge_prompt: str = flag(
        OURS,
        "ours; airbench: prompt and temperature of --airbench-dir; or a file with $description,"
        " $question, $first and $second in it",
        only_with="judge_base_url",
    )
    airbench_dir: Path | None = flag(
        None, "a copy of the benchmark's code", only_with="judge_prompt=airbench"
    )
    judge_temperature: float = flag(
        -1.0,
        "sampling temperature of the judge (below 0: the prompt's own, else 0)",
        only_with="judge_base_url",
    )
    judge_workers: int = flag(4, "requests at a time", only_with="judge_base_url")
    judge_timeout: float = flag(60.0, "seconds that one reply may take", only_with="judge_base_url")
    judge_tries: int = flag(6, "tries per request", only_with="judge_base_url")
    judge_key_variable: str = flag(
        "OPENAI_API_KEY", "environment variable that holds the key", only_with="judge_base_url"
    )
    judge_price_in: float = flag(
        0.0, "dollars per million tokens in, for the estimate", only_with="judge_base_url"
    )
    judge_price_out: float = flag(
        0.0, "dollars per million tokens out, for the estimate", only_with="judge_base_url"
    )
    seed: int = flag(42, "seed of the bootstrap")

    def check(self) -> None:
        if bool(self.judge_base_url) != bool(self.judge_model):
            raise ValueError("--judge-base-url and --judge-model go together")
        if self.judge_send and not self.judge_model:
            raise ValueError("--judge-send true needs --judge-base-url and --judge-model")
        if self.judge_model:
            self.endpoint(judge_prompt(OURS))

    def endpoint(self, prompt: JudgePrompt) -> Endpoint:
        return Endpoint(
            self.judge_base_url,
            self.judge_model,
            prompt.temperature if self.judge_temperature < 0 else self.judge_temperature,
            prompt.max_tokens,
            timeout=self.judge_timeout,
            tries=self.judge_tries,
            key_variable=self.judge_key_variable,
        )

    def prompt(self) -> JudgePrompt:
        return judge_prompt(self.judge_prompt, self.airbench_dir)


def write_scores(
    flags: Flags, about: dict, task: str, replies: list[Reply], metrics: dict, scoring: dict
) -> None:
    names = ("llm", "weights", "max_answer_tokens", "token_rate", "answers_sha256", "num_train")
    write_result(
        flags.exp_dir,
        task=task,
        metrics=metrics,
        num_clips=len(replies),
        trained_clips=about.get("trained_clips"),
        settings={name: about.get(name) for name in names} | scoring | {"seed": flags.seed},
        variant="" if scoring["scoring"] == "choices" else scoring["scoring"],
        **{name: about[name] for name in ("split", "system", "encoder", "checkpoint")},
        **{name: about[name] for name in ("trained_parameters", "frozen_parameters")},
    )


def score_with_judge(flags: Flags, about: dict, replies: list[Reply]) -> None:
    """Says what judging takes, and with --judge-send true does it."""
    prompt = flags.prompt()
    endpoint = flags.endpoint(prompt)
    requests = judge_requests(replies, prompt.template)
    with open_store(flags.exp_dir / "judge" / f"{about['split']}.jsonl") as store:
        missing = [request for request in requests if request.name(endpoint) not in store]
        print(f"{about['split']}: {estimate(missing, flags.judge_price_in, flags.judge_price_out)}")
        if not flags.judge_send:
            print("nothing was sent; --judge-send true sends them")
            return
        if not endpoint.key:
            print(
                f"no key in {flags.judge_key_variable}: the requests go without one",
                file=sys.stderr,
            )
        ratings = ask_all(requests, endpoint, store, flags.judge_workers)
    scoring: dict[str, Any] = {
        "scoring": "judge",
        "judge": endpoint.model,
        "judge_base_url": endpoint.base_url,
    }
    scoring |= {
        "judge_temperature": endpoint.temperature,
        "judge_prompt": prompt.name,
        "judge_prompt_hash": hash_of(prompt.template.template),
    }
    for task, members in qa_scores.by_task(replies).items():
        write_scores(
            flags,
            about,
            task,
            members,
            qa_scores.judged_metrics(members, ratings, flags.seed),
            scoring,
        )


def score_split(flags: Flags, answers: Path) -> None:
    about = json.loads(answers.with_suffix(".json").read_text(encoding="utf-8"))
    if about["answers_sha256"] != sha256_of_file(answers):
        raise ValueError(f"{answers} and its .json do not belong together; run decode.py again")
    replies = qa_scores.read_replies(answers)
    for task, members in qa_scores.by_task(reply for reply in replies if reply.choices).items():
        metrics = qa_scores.choice_metrics(members, flags.seed)
        write_scores(flags, about, task, members, metrics, {"scoring": "choices"})
        rate = metrics["instruction_following_rate"]
        print(f"{task}: {100 * rate:.1f} % of the replies can be read")
        if rate < qa_scores.FOLLOWING_WANTED:
            print(
                f"WARNING: {task}: under {100 * qa_scores.FOLLOWING_WANTED:.0f} %; read"
                " strict_accuracy",
                file=sys.stderr,
            )
    open_replies = [reply for reply in replies if not reply.choices]
    for task, members in qa_scores.by_task(open_replies).items():
        write_scores(
            flags,
            about,
            task,
            members,
            qa_scores.offline_metrics(members, flags.seed),
            {"scoring": "offline"},
        )
    if flags.judge_model and open_replies:
        score_with_judge(flags, about, open_replies)


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    folder = flags.exp_dir / "answers"
    names = (
        flags.splits.split(",")
        if flags.splits
        else sorted(path.stem for path in folder.glob("*.jsonl"))
    )
    if not names:
        raise ValueError(f"{folder}: no answers; run decode.py first")
    if flags.judge_model:
        flags.prompt()  # what is wrong with it is said before anything is scored
    for name in names:
        score_split(flags, folder / f"{name}.jsonl")
    if not flags.splits:
        (flags.exp_dir / "scored.done").touch()


if __name__ == "__main__":
    run_main(main)
