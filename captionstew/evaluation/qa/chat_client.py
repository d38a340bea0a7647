"""One request to an endpoint that speaks OpenAI's chat-completions protocol.

The key is read from the environment for each request, sent to the endpoint's own host only, and
taken out of what a server says of it.
"""

import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from captionstew.errors import UserError

MAX_BYTES = 10_000_000  # of one reply
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
    try:
        with urllib.request.build_opener(_NoRedirect).open(
            request, timeout=endpoint.timeout
        ) as response:
            content = _read(response, deadline)
    except urllib.error.HTTPError as error:
        raise _refused(error, endpoint) from None
    except (OSError, HTTPException) as error:  # refused, reset, timed out, cut off
        raise TryAgain(f"{type(error).__name__}: {error}") from None
    return _parse(content)


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
    if endpoint.key:
        said = said.replace(endpoint.key, "<key>")
    where = f"{endpoint.base_url} refused the request: HTTP {error.code}"
    return JudgeError(
        f"{where} {' '.join(said.split())[:300]}; check --judge-base-url, --judge-model and the key"
        f" in {endpoint.key_variable}"
    )


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header: a number of seconds or a date; None without a usable
    one.
    """
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _parse(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
        message = answer["choices"][0]["message"]
        reply = message.get("content") or message.get("refusal")
        if not isinstance(reply, str):
            raise TypeError("no text in choices[0].message")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise TryAgain(f"not a chat completion ({type(error).__name__}: {error})") from None
    return {"reply": reply, "model": answer.get("model"), "usage": answer.get("usage")}
