"""Files that are there as a whole or not at all."""

import json
import os
from contextlib import contextmanager
from pathlib import Path


def write_json(path: Path, content: object) -> None:
    """JSON with sorted keys under its final name only when complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(
        json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    os.replace(partial, path)


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "wb", **options):
    """A file that takes the name `path` when the block ends well, and vanishes when it does not."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
