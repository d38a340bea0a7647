"""Replies of a judge on disk: one JSON object per line, each there for good before `add`
returns.
"""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from captionstew.files import parse_json
from captionstew.locks import one_writer


class ReplyStore:
    """Records by name in an append-only file. Use `open_store`, which lets one process in at a
    time.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        self._file = file
        self._lock = threading.Lock()
        self._records: dict[str, dict[str, Any]] = {}
        self._load()

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self._records[name]

    def __len__(self) -> int:
        return len(self._records)

    def add(self, name: str, record: dict[str, Any]) -> None:
        """Appends and waits for the disk."""
        text = json.dumps({"name": name, **record}, ensure_ascii=False)
        # half of a surrogate pair, in a caption for example, becomes JSON's escape for it
        line = text.encode("utf-8", "backslashreplace") + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._records[name] = record

    def _load(self) -> None:
        """Reads what is there; half a last line, left by a kill, is cut off.

        Raises ValueError for any other line that is no record: it would be asked, and paid, again.
        """
        self._file.seek(0)
        complete = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                record = parse_json(line)
                self._records[record.pop("name")] = record
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise ValueError(
                    f"{self.path}: line {number} is not a stored reply ({error}); mend or remove it"
                ) from error
            complete += len(line)
        self._file.truncate(complete)
        self._file.seek(0, os.SEEK_END)


@contextmanager
def open_store(path: Path) -> Iterator[ReplyStore]:
    """The store at `path`, made if need be.

    Raises InUse if another process has it open (both would ask the same questions), or ValueError
    if it is damaged.
    """
    with one_writer(path, is_file=True), open(path, "a+b") as file:
        yield ReplyStore(path, file)
