"""What earlier checks found in audio files, so that a file is decoded once as long as it stays the
same: known by path, size and time of change.

One SQLite file per folder of checks. Workers read it; between their runs one process adds what
they found, which they leave beside their shares.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path

import soundfile

from captionstew.data import audio, decoders
from captionstew.data.audio import AudioInfo, BadAudio, inspect_audio

NAME = "results.sqlite"
ENDING = ".results.jsonl"  # of what a worker found anew
ROWS_AT_A_TIME = 100_000


class KnownAudio:
    """`inspect` is `captionstew.data.audio.inspect_audio`, but decodes only what is new; `found`
    collects that.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / NAME
        # The file does not change while workers read it, which spares locks on shared file systems.
        self._known = (
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
            if path.is_file()
            else None
        )
        self.found: list[tuple[str, dict]] = []

    def inspect(self, path: str) -> AudioInfo:
        """What the file holds; raises BadAudio as decoding it did."""
        state = os.stat(path)
        # Fingerprints of two decoders must never be compared, nor their refusals.
        key = f"{_key(path, state)}-{decoder()}"
        answer = self._look_up(key)
        if answer is not None:
            if "reason" in answer:
                raise BadAudio(path, answer["reason"])
            return AudioInfo(**answer)
        try:
            info = inspect_audio(path)
        except BadAudio as error:
            self.found.append((key, {"reason": error.reason}))
            raise
        self.found.append((key, asdict(info)))
        return info

    def _look_up(self, key: str) -> dict | None:
        if self._known is None:
            return None
        row = self._known.execute("select answer from results where key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def write_found(self, path: Path) -> None:
        """What was decoded, for `remember`."""
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in self.found)

    def close(self) -> None:
        if self._known is not None:
            self._known.close()


def _key(path: str, state: os.stat_result) -> str:
    text = f"{os.path.abspath(path)}\0{state.st_size}\0{state.st_mtime_ns}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


@cache
def decoder() -> str:
    """Names what decodes: the libraries' versions and our rules."""
    modules = [Path(audio.__file__), *sorted(Path(decoders.__file__).parent.glob("*.py"))]
    rules = b"".join(path.read_bytes() for path in modules)
    versions = f"{soundfile.__libsndfile_version__} {metadata.version('av')}"
    return hashlib.blake2b(rules + versions.encode(), digest_size=8).hexdigest()


def remember(folder: Path) -> None:
    """Adds to `folder`'s results what workers left anywhere below it; no worker may be running.

    A killed call loses nothing: what is in the file already is added once more.
    """
    left = sorted(folder.rglob(f"*{ENDING}"))
    if not left:
        return
    connection = sqlite3.connect(folder / NAME)
    connection.execute(
        "create table if not exists results (key text primary key, answer text) without rowid"
    )
    for rows in _chunks(left):
        with connection:
            connection.executemany("insert or replace into results values (?, ?)", sorted(rows))
    connection.close()
    for path in left:
        path.unlink()


def _chunks(files: list[Path]) -> Iterator[list[tuple[str, str]]]:
    rows: list[tuple[str, str]] = []
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                key, answer = json.loads(line)
            except ValueError:
                continue  # half a line, left by a kill: its share was not finished either
            rows.append((key, json.dumps(answer)))
        if len(rows) >= ROWS_AT_A_TIME:
            yield rows
            rows = []
    yield rows
