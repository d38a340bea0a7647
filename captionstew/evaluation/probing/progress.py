"""How far a training of heads has come, on disk, so that a killed one goes on where it was."""

import logging
import time
from pathlib import Path
from typing import Any

from captionstew.checkpoint import load_checkpoint, save_checkpoint

SAVE_SECONDS = 60.0  # between two writes


class Progress:
    """A file beside the probe that is trained; removed when the probe is there.

    What is stored under another `identity`, a hash of all that decides the result, is not gone on
    with.
    """

    def __init__(self, path: Path, identity: str, seconds: float = SAVE_SECONDS) -> None:
        self.path = path
        self.identity = identity
        self.seconds = seconds
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """What `save` got last.

        Raises:
          CheckpointError: the file cannot be read.
        """
        if not self.path.is_file():
            return None
        content = load_checkpoint(self.path)
        if content["identity"] != self.identity:
            logging.warning("%s: of other flags or another encoder; training begins", self.path)
            return None
        return content["state"]

    def due(self) -> bool:
        """Whether enough time has passed since the last write."""
        return time.monotonic() - self._saved >= self.seconds

    def save(self, state: dict[str, Any]) -> None:
        save_checkpoint(self.path, {"identity": self.identity, "state": state})
        self._saved = time.monotonic()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
