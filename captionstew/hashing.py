"""Names derived from content: of files, and of JSON-like settings."""

import hashlib
import json
from pathlib import Path
from typing import Any


def key_hash(audio_key: str, seed: int) -> int:
    """The 64 bits that decide a clip's place in its stratum."""
    return int.from_bytes(
        hashlib.blake2b(f"{seed}:{audio_key}".encode(), digest_size=8).digest(), "big"
    )


def stable_hash(*parts: float | str) -> int:
    """A 64-bit hash of `parts`, the same on every machine and in every process (Python's own is
    not).
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def sha256_of_file(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(content: Any) -> str:
    """Twelve hexadecimal digits that change with any value of a JSON-like object."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[
        :12
    ]
