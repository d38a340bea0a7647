"""One request to an endpoint that speaks OpenAI's chat-completions protocol.

The key is read from the environment for each request, sent to the endpoint's own host only, and
taken out of whatever a server says.
"""

import base64
import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from captionstew.errors import UserError

MAX_BYTES = 10_000_000  # of one reply
SECRET_LENGTH = 8  # characters of the shortest key that is hidden
RETRIED = frozenset({408, 409, 425, 429}) | frozenset(range(500, 600))  # HTTP statuses


class JudgeError(UserError):
    """The judge cannot be asked, or did not answer everything; the message says which and what to
    do.
    """


@dataclass(frozen=True)
class Endpoint:
    """Where and how the judge is asked. `timeout` in seconds for one whole reply; `tries` per
    request.
    """

    base_url: str
    model: str
    temperature: float = 0.0
    max_tokens: int = 1024
    timeout: float = 60.0
    tries: int = 6
    first_wait: float = 1.0  # seconds before the second try; doubled each time
    key_variable: str = "OPENAI_API_KEY"

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"--judge-base-url {self.base_url}: not of the form https://host/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "--judge-base-url: no user, password or query in it; the key comes from the"
                " environment"
            )
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if self.key and parts.scheme == "http" and not local:
            raise ValueError(
                f"--judge-base-url {self.base_url}: the key in {self.key_variable} would travel"
                " unencrypted; use https, or unset the variable for a server that needs no key"
            )

    @property
    def key(self) -> str:
        return os.environ.get(self.key_variable, "")


class TryAgain(Exception):
    """This try failed, the next may not; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _Exchange:
    """The connections of one request, which end at its deadline whatever a server drips."""

    def __init__(self, seconds: float) -> None:
        self.over = threading.Event()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._timer.start()
        try:
            yield
        finally:
            self._timer.cancel()

    def handlers(self) -> list[urllib.request.BaseHandler]:
        """For urllib.request, with connections that this knows of."""
        plain, encrypted = self._known(HTTPConnection), self._known(HTTPSConnection)

        class Http(urllib.request.HTTPHandler):
            def http_open(self, request: urllib.request.Request) -> Any:
                return self.do_open(plain, request)

        class Https(urllib.request.HTTPSHandler):
            def https_open(self, request: urllib.request.Request) -> Any:
                return self.do_open(encrypted, request)

        return [Http(), Https()]

    def _known(self, kind: type[HTTPConnection]) -> Any:
        exchange = self

        class Connection(kind):  # type: ignore[valid-type, misc]
            def connect(self) -> None:
                super().connect()
                exchange._sockets.append(self.sock)

        return Connection

    def _end(self) -> None:
        self.over.set()
        for connection in self._sockets:
            with suppress(OSError):  # it has ended already
                connection.shutdown(socket.SHUT_RDWR)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def complete(prompt: str, endpoint: Endpoint) -> dict[str, Any]:
    """One request; {"reply", "model", "usage"}. Raises TryAgain, or JudgeError for what no second
    try can mend.
    """
    body = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": endpoint.temperature,
        "max_tokens": endpoint.max_tokens,
    }
    request = urllib.request.Request(
        endpoint.base_url.rstrip("/") + "/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    if endpoint.key:
        request.add_unredirected_header("Authorization", f"Bearer {endpoint.key}")
    deadline = time.monotonic() + endpoint.timeout
    exchange = _Exchange(endpoint.timeout)
    opener = urllib.request.build_opener(_NoRedirect, *exchange.handlers())
    try:
        with (
            exchange.running(),
            opener.open(request, timeout=endpoint.timeout) as response,
        ):
            content = _read(response, deadline)
    except urllib.error.HTTPError as error:
        raise _refused(error, endpoint) from None
    except (OSError, HTTPException) as error:  # refused, reset, timed out, cut off
        if exchange.over.is_set():
            raise TryAgain(f"no whole reply in {endpoint.timeout:g} s") from None
        raise TryAgain(masked(f"{type(error).__name__}: {error}", endpoint.key)) from None
    return _parse(content, endpoint.key)


def _read(response: Any, deadline: float) -> bytes:
    """The whole body before `deadline`: a server that drips must not hold a worker for ever."""
    parts, size = [], 0
    while part := response.read1(65536):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TryAgain("the reply took too long")
        if size > MAX_BYTES:
            raise TryAgain(f"the reply is longer than {MAX_BYTES} bytes")
    if response.length:
        raise TryAgain("the reply was cut off")
    return b"".join(parts)


def _refused(error: urllib.error.HTTPError, endpoint: Endpoint) -> Exception:
    if error.code in RETRIED:
        return TryAgain(f"HTTP {error.code}", _retry_after(error.headers.get("Retry-After")))
    try:
        said = error.read(2000).decode(errors="replace")
    except (OSError, HTTPException):
        said = ""
    said = masked(said, endpoint.key)
    where = f"{endpoint.base_url} refused the request: HTTP {error.code}"
    return JudgeError(
        f"{where} {' '.join(said.split())[:300]}; check --judge-base-url, --judge-model and the key"
        f" in {endpoint.key_variable}"
    )


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header: a number of seconds or a date; None without a usable
    one.
    """
    try:
        return Retry().parse_retry_after(value) if value else None
    except InvalidHeader:
        return None


def masked(text: str, key: str) -> str:
    """The text without the key, in plain, URL or Base64 form; the short keys that local servers
    accept are no secrets.
    """
    if len(key) < SECRET_LENGTH:
        return text
    forms = {key, quote(key, safe=""), quote(key), quote_plus(key)}
    for before in range(3):  # Base64 of what holds the key has one of three forms of it
        encoded = base64.b64encode(b" " * before + key.encode()).decode().rstrip("=")
        inner = encoded[(0, 2, 3)[before] : -1]
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "<key>")
    return text


def _parse(content: bytes, key: str) -> dict[str, Any]:
    """{"reply", "model", "usage"}: text that can be written as UTF-8, and counts."""
    try:
        answer = json.loads(content)
        message = answer["choices"][0]["message"]
        reply = message.get("content") or message.get("refusal")
        if not isinstance(reply, str):
            raise TypeError("no text in choices[0].message")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = masked(f"{type(error).__name__}: {error}", key)
        raise TryAgain(f"not a chat completion ({reason})") from None
    model, usage = answer.get("model"), answer.get("usage")
    counts = usage.items() if isinstance(usage, dict) else ()
    return {
        "reply": _clean(reply, key),
        "model": _clean(model, key) if isinstance(model, str) else None,
        "usage": {_clean(name, key): n for name, n in counts if isinstance(n, int)},
    }


def _clean(text: str, key: str) -> str:
    """Without the key, and without halves of surrogate pairs, which JSON may hold and no file."""
    return masked(text, key).encode("utf-8", "replace").decode()
