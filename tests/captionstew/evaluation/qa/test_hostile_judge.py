"""What a judge's server may send back, meaning well or not: nothing of it does harm."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import quote

import pytest

from captionstew.evaluation.qa.chat_client import Endpoint, masked
from captionstew.evaluation.qa.judge import JudgeRequest, ask_all
from captionstew.evaluation.qa.reply_store import open_store

KEY = "sk-very/secret+0123456789"


def completion(text):
    choices = [{"message": {"role": "assistant", "content": text}}]
    return {"model": "judge-1", "choices": choices, "usage": {"prompt_tokens": 100}}


class Handler(BaseHTTPRequestHandler):
    """Sends `answers` one after the other, then `7 8`."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.count += 1
        answer = self.server.answers.pop(0) if self.server.answers else completion("7 8")
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """ask(answers ..., prompt) -> the reply, what was stored, and how often the server was
    asked.
    """
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.count = [], 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    endpoint = Endpoint(url, "judge-1", tries=4, first_wait=0.01)

    def run(*answers, prompt="rate"):
        server.answers += answers
        with open_store(tmp_path / "judge.jsonl") as store:
            request = JudgeRequest("item", "sound", "model_first", prompt)
            (reply,) = ask_all([request], endpoint, store, 1).values()
        return reply, (tmp_path / "judge.jsonl").read_text(), server.count

    yield run
    server.shutdown()
    server.server_close()


ECHOES = {
    "plain": KEY,
    "url": quote(KEY, safe=""),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 after one": base64.b64encode(f"x{KEY}!".encode()).decode(),
    "base64 after two": base64.urlsafe_b64encode(f"xx{KEY}!!".encode()).decode(),
}


@pytest.mark.parametrize("form", ECHOES)
def test_a_server_that_echoes_the_key_has_it_masked(ask, form):
    echo = ECHOES[form]
    answer = completion(f"7 8 {echo}") | {"model": f"m {echo}", "usage": {echo: 3}}
    reply, stored, _ = ask({"error": echo}, answer)
    assert reply.startswith("7 8 ") and stored.count("<key>") == 3
    assert echo not in stored and KEY not in stored


def test_the_short_key_of_a_local_server_is_no_secret():
    assert masked("7 8 EMPTY", "EMPTY") == "7 8 EMPTY" and masked("7 8", "7") == "7 8"


NESTED = b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
HOSTILE = [
    NESTED,
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b'{"choices": []}',
    b'{"choices": [{"message": {"content": 5}}]}',
    b'{"choices": [{"message": null}]}',
    b'{"choices": {"0": 1}}',
    b"<html>",
]


@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_reply_is_asked_again(ask, answer):
    reply, stored, count = ask(answer)
    assert reply == "7 8" and count == 2 and len(stored.splitlines()) == 1


def test_half_a_surrogate_pair_and_odd_counts_are_cleaned(ask):
    odd = completion("7 8 \ud800") | {"model": ["x"], "usage": {"a": {"b": [1]}, "n": 3}}
    reply, stored, _ = ask(odd)
    assert reply == "7 8 ?"
    record = json.loads(stored)
    assert record["model"] is None and record["usage"] == {"n": 3}


def test_a_caption_with_half_a_surrogate_pair_is_asked_once_and_stored(ask):
    for _ in range(2):
        reply, stored, count = ask(prompt="a dog \udc80 barks")
        assert (reply, count) == ("7 8", 1)
        assert json.loads(stored)["prompt"] == "a dog \udc80 barks"
