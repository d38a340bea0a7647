"""A judge for open answers: any endpoint that speaks OpenAI's chat-completions protocol.

AIR-Bench's protocol: the judge sees a description of the audio, the question, and two answers, the
reference's and the model's, and rates both from 1 to 10; it is asked twice, with the answers in
either order.

Every reply is on disk before the next step: a run that is killed or fails goes on where it was, and
no request whose reply was stored is sent again. The key comes from the environment and is written
nowhere.
"""

import random
import re
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from string import Template

from tqdm import tqdm

from captionstew.evaluation.qa.chat_client import Endpoint, JudgeError, TryAgain, complete
from captionstew.evaluation.qa.judge_prompt import JUDGE_PROMPT
from captionstew.evaluation.qa.reply_store import ReplyStore
from captionstew.evaluation.qa.scores import Reply
from captionstew.hashing import hash_of

ORDERS = ("model_second", "model_first")  # which of the two assistants the evaluated model is
MAX_WAIT = 300.0  # seconds between two tries, whatever the server asks for
MAX_FAILURES_IN_A_ROW = 10  # requests; then the endpoint is taken for dead
CHARACTERS_PER_TOKEN = 4  # of English text, for the estimate
REPLY_TOKENS = 8  # two numbers, for the estimate
SECTIONS = re.compile(r"\[(?=The (?:Start|End) of Assistant|System\]|Question\]|Detailed Audio)")


@dataclass(frozen=True)
class JudgeRequest:
    """One prompt about one item, with the model's answer in one of the ORDERS."""

    item: str
    task: str
    order: str
    prompt: str

    def name(self, endpoint: Endpoint) -> str:
        """Equal for requests whose replies may stand for each other, and for no others."""
        asked = [
            endpoint.base_url,
            endpoint.model,
            endpoint.temperature,
            endpoint.max_tokens,
            self.prompt,
        ]
        return f"{self.item}/{self.order}/{hash_of(asked)}"


@dataclass
class Pause:
    """When any worker may send again: a rate limit is about all of them."""

    until: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def at_least(self, seconds: float) -> None:
        with self.lock:
            self.until = max(self.until, time.monotonic() + seconds)

    def wait(self, stop: threading.Event) -> None:
        while (left := self.until - time.monotonic()) > 0 and not stop.is_set():
            stop.wait(left)


def judge_requests(replies: Iterable[Reply], prompt: Template = JUDGE_PROMPT) -> list[JudgeRequest]:
    """Both orders of every reply."""
    requests = []
    for reply in replies:
        answers = {"reference": _quoted(reply.answer), "model": _quoted(reply.reply)}
        for order in ORDERS:
            first, second = (
                ("reference", "model") if order == "model_second" else ("model", "reference")
            )
            text = prompt.substitute(
                description=reply.description,
                question=reply.question,
                first=answers[first],
                second=answers[second],
            )
            requests.append(JudgeRequest(reply.item, reply.task, order, text))
    return requests


def _quoted(answer: str) -> str:
    """An answer cannot end its own section of the prompt."""
    return SECTIONS.sub("(", answer)


def estimate(requests: Sequence[JudgeRequest], price_in: float, price_out: float) -> str:
    """One line on what these requests will take; prices in dollars per million tokens."""
    tokens_in = sum(len(request.prompt) for request in requests) // CHARACTERS_PER_TOKEN
    tokens_out = REPLY_TOKENS * len(requests)
    cost = (tokens_in * price_in + tokens_out * price_out) / 1e6
    money = (
        f", about ${cost:.2f}"
        if price_in or price_out
        else " (--judge-price-in and -out give a price)"
    )
    return (
        f"{len(requests)} requests to the judge, about {tokens_in} tokens in and {tokens_out}"
        f" out{money}"
    )


def ask_all(
    requests: Sequence[JudgeRequest], endpoint: Endpoint, store: ReplyStore, workers: int = 4
) -> dict[tuple[str, str], str]:
    """{(item, order): reply} of all requests, from the store where they are there, else from the
    endpoint.

    Raises:
      JudgeError: the endpoint refuses, is dead, or left requests without a reply; a second call
          goes on.
    """
    missing = [request for request in requests if request.name(endpoint) not in store]
    stop, pause = threading.Event(), Pause()
    failed: list[str] = []
    in_a_row = 0
    with ThreadPoolExecutor(workers) as pool:
        futures = {
            pool.submit(_ask_and_store, request, endpoint, store, pause, stop): request
            for request in missing
        }
        try:
            for future in tqdm(
                as_completed(futures), total=len(futures), desc="judge", disable=len(futures) < 20
            ):
                reason = future.result()
                in_a_row = in_a_row + 1 if reason else 0
                if reason:
                    failed.append(f"{futures[future].item}: {reason}")
                if in_a_row >= MAX_FAILURES_IN_A_ROW:
                    raise JudgeError(
                        f"the judge failed {in_a_row} times in a row ({reason}); {_kept(store)}"
                    )
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    if failed:
        raise JudgeError(
            f"{len(failed)} of {len(missing)} requests got no reply, the first: {failed[0]};"
            f" {_kept(store)}"
        )
    return {
        (request.item, request.order): store[request.name(endpoint)]["reply"]
        for request in requests
    }


def _kept(store: ReplyStore) -> str:
    return f"{len(store)} replies are kept in {store.path}; the same command goes on from there"


def _ask_and_store(
    request: JudgeRequest,
    endpoint: Endpoint,
    store: ReplyStore,
    pause: Pause,
    stop: threading.Event,
) -> str:
    """Asks until there is a reply, and stores it; returns "" or why there is none."""
    reason = "stopped"
    for number in range(endpoint.tries):
        pause.wait(stop)
        if stop.is_set():
            return reason
        try:
            reply = complete(request.prompt, endpoint)
        except TryAgain as error:
            reason = str(error)
            wait = (
                error.wait
                if error.wait is not None
                else endpoint.first_wait * 2**number * random.uniform(0.5, 1.5)
            )
            if error.wait is not None:
                pause.at_least(min(wait, MAX_WAIT))
            elif number + 1 < endpoint.tries:
                stop.wait(min(wait, MAX_WAIT))
            continue
        about = {
            "item": request.item,
            "task": request.task,
            "order": request.order,
            "asked_model": endpoint.model,
        }
        when = {"created": datetime.now(UTC).isoformat(timespec="seconds")}
        store.add(request.name(endpoint), about | reply | {"prompt": request.prompt} | when)
        return ""
    return f"{reason} ({endpoint.tries} tries)"
