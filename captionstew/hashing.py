"""Names derived from content: of files, and of JSON-like settings."""

import hashlib
import json
from pathlib import Path
from typing import Any


def sha256_of_file(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(content: Any) -> str:
    """Twelve hexadecimal digits that change with any value of a JSON-like object."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]
