"""An experiment folder with a bit of everything, and a headless browser."""

import itertools
import json
import os
import select
import shutil
import subprocess
import time

import numpy as np
import pytest

from captionstew.evaluation.report.examples import Example, Retrieved, write_examples

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HOSTILE = '"><script>document.title="owned"</script><img src=x onerror=alert(1)>|\\ $\\frac{'
HALF = "half a character \ud800"
RATE = 16000


def tone(seconds=1.0, hertz=440):
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)


@pytest.fixture
def experiment(tmp_path, result, retrieval_metrics):
    """A folder with results of several protocols, systems and data sizes, curves, examples and an
    analysis.
    """
    sizes = {"fsd50k": 10_231, "nsynth": 100}  # the paper's and another
    for number, system in enumerate(
        ("contrastive-scratch", "captioning-scratch", "random", HOSTILE)
    ):
        folder = tmp_path / f"system{number}"
        for task, metric, value in (("fsd50k", "map", 0.5), ("nsynth", "accuracy", 0.7)):
            metrics = {
                metric: value + number / 100,
                f"{metric}_deviation": 0.01,
                f"{metric}_interval": (0.4, 0.8),
            }
            for pooling in ("mean", "attention"):
                result(folder, task=f"probe_{task}", system=system, metrics=metrics,
                       num_clips=sizes[task],
                       settings={"metric": metric, "pooling": pooling, "num_train": 1234},
                       variant=pooling if pooling == "attention" else "")  # fmt: skip
        result(
            folder,
            task="lit_retrieval_audiocaps",
            system=system,
            metrics=retrieval_metrics(0.2 + number / 10),
            settings={"duplicate_captions": "strict"},
            variant="strict",
        )
    for size, value in (("400k", 0.3), ("1M", 0.4), ("4M", 0.45)):
        result(
            tmp_path / "scaling" / size,
            task="probe_fsd50k",
            system="contrastive-scratch",
            metrics={"map": value},
            settings={"metric": "map", "pooling": "mean", "data_size": size},
        )
    records = [
        {"kind": "train", "step": step, "epoch": 1, "loss": 3.0 / step} for step in range(1, 9)
    ]
    records += [
        {"kind": "valid", "step": 8, "epoch": 1, "text_to_audio_r10": 0.2, "audio_to_text_r10": 0.3}
    ]
    lines = (
        "".join(json.dumps(record) + "\n" for record in records) + '{"kind": "tr'
    )  # killed while writing
    (tmp_path / "system0" / "scalars.jsonl").write_text(lines)
    found = [Retrieved(HOSTILE, 0.9, False), Retrieved("a low tone", 0.8, True)]
    retrieved = Example("a/b", tone(), RATE, [HOSTILE, HALF], None, found)
    generated = [
        Example("a/b", tone(), RATE, ["a"], HOSTILE),
        Example("c", tone(20, 880), RATE, ["a high tone"], "x"),
    ]
    write_examples(tmp_path / "system0", HOSTILE, [retrieved])
    write_examples(tmp_path / "system1", "captioning", generated)
    return tmp_path


@pytest.fixture
def analysis(tmp_path):
    """What egs/captionstew/local/analyse.py leaves."""
    words = {
        "captions": 60,
        "vocabulary": 4321,
        "mean_length": 7.5,
        "distinct1": 0.1,
        "distinct2": 0.2,
        "distinct3": 0.3,
        "distinct4": None,
    }
    statistics = {
        name: {"words": words, "equal_size": {"words": words}} for name in ("audiocaps", "mine")
    }
    counts = {name: {"clips": 30, "recordings": 20, "captions": 60} for name in statistics}
    before = {"audiocaps": {"captions": 70, "vocabulary": 4400}}
    folder = tmp_path / "analysis"
    folder.mkdir()
    (folder / "analysis.json").write_text(
        json.dumps(
            {"statistics": statistics, "counts": counts, "before_filter": before, "figure": "x"}
        )
    )
    rows = (
        'x,y,source,caption\n0,0,audiocaps,"a dog,'
        ' barking"\n0,0,audiocaps,second\n1,1,mine,<b>mine</b>\n'
    )
    (folder / "points.csv").write_text(rows)
    (folder / "sources.png").write_bytes(b"\x89PNG not really")
    return folder


@pytest.fixture
def browser(tmp_path):
    """Headless Chromium without network."""
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(
            f"the page is not opened in a browser: none of {', '.join(BROWSERS)} is on PATH"
        )
    opened = Browser(program, tmp_path / "profile")
    yield opened
    opened.close()


class Browser:
    """A tab, driven through Chromium's DevTools protocol over a pipe: JSON messages that end with a
    zero byte.
    """

    def __init__(self, program, profile):
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--disable-extensions",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "--window-size=1200,900",
        ]
        # The protocol is spoken on the descriptors 3 and 4.
        command = [
            "bash",
            "-c",
            f'exec "$@" 3<&{to_browser} 4>&{from_browser}',
            "bash",
            program,
            *flags,
        ]
        self._process = subprocess.Popen(
            command,
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._numbers, self._rest, self._session, self.events = itertools.count(1), b"", None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def call(self, method, **params):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _receive(self, seconds=60):
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
            chunk = os.read(self._read, 1 << 16) if ready else b""
            assert chunk, (
                f"the browser did not answer within {seconds} s, or ended ({self._process.poll()})"
            )
            self._rest += chunk
        line, self._rest = self._rest.split(b"\0", 1)
        return json.loads(line)

    def open(self, path):
        loaded = {
            "loaderId": self.call("Page.navigate", url=path.as_uri())["loaderId"],
            "name": "load",
        }
        while not any(loaded.items() <= event.get("params", {}).items() for event in self.events):
            self.events.append(self._receive())

    def run(self, expression):
        """Value of a JavaScript expression, or of the promise that it gives."""
        answer = self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def errors(self):
        """Exceptions, console errors and what the browser itself complains about (such as a blocked
        script).
        """
        return [
            event
            for event in self.events
            if event.get("method") == "Runtime.exceptionThrown"
            or (
                event.get("method") == "Runtime.consoleAPICalled"
                and event["params"]["type"] in ("error", "assert")
            )
            or (
                event.get("method") == "Log.entryAdded"
                and event["params"]["entry"]["level"] == "error"
            )
        ]

    def requests(self):
        """Addresses that the page asked for."""
        sent = [
            event for event in self.events if event.get("method") == "Network.requestWillBeSent"
        ]
        return [event["params"]["request"]["url"] for event in sent]

    def close(self):
        os.close(self._write)  # the browser ends when its pipe does
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
