"""What a manifest's rows must hold: an id of their own, one recording, one supervision with
captions (see `cuts.py`).

Rows are checked in their JSON form, so that millions of them are read and written without lhotse's
objects.
"""

import os
from array import array
from pathlib import Path

import numpy as np

from captionstew.errors import UserError

RESERVED = ("captions", "sources", "audio_key")


class ManifestError(UserError):
    """A manifest or a cut that breaks the data contract; the message says where and what."""


def check_row(row: dict) -> None:
    """The contract, on a cut's JSON form. Raises ManifestError without a place: callers add file
    and line.
    """
    if not isinstance(row, dict) or row.get("type") != "MonoCut":
        raise ManifestError("not a MonoCut")
    if not isinstance(row.get("id"), str) or not row["id"]:
        raise ManifestError("cut without an id")
    if not _is_positive(row.get("duration")):
        raise ManifestError(
            f"duration must be a positive number of seconds, got {row.get('duration')!r}"
        )
    sources = (row.get("recording") or {}).get("sources") or []
    if len(sources) != 1 or sources[0].get("type") != "file" or not sources[0].get("source"):
        raise ManifestError("recording must have exactly one audio source of type 'file'")
    supervisions = row.get("supervisions") or []
    if len(supervisions) != 1:
        raise ManifestError(f"a cut must have exactly one supervision, got {len(supervisions)}")
    _check_custom(supervisions[0].get("custom") or {})


def _check_custom(custom: dict) -> None:
    missing = [name for name in RESERVED if name not in custom]
    if missing:
        raise ManifestError(f"the supervision's custom lacks {', '.join(missing)}")
    captions, sources = custom["captions"], custom["sources"]
    if not _are_texts(captions) or not captions:
        raise ManifestError("captions must be a list of at least one caption, none of them empty")
    if not _are_texts(sources) or len(sources) != len(captions):
        raise ManifestError(
            f"sources must name one corpus per caption ({len(captions)}), got {sources!r}"
        )
    if not isinstance(custom["audio_key"], str) or not custom["audio_key"]:
        raise ManifestError(f"audio_key must be a non-empty string, got {custom['audio_key']!r}")


def _is_positive(value) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
    )


def _are_texts(values) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, str) and value.strip() for value in values
    )


def check_unique(id_hashes: array, path: Path) -> None:
    """Raises ManifestError that names two lines of `path` with the same cut id; `id_hashes` has
    their 64-bit hashes, as millions of ids would take too much memory.
    """
    hashes = np.asarray(id_hashes, dtype=np.uint64)
    order = np.argsort(hashes, kind="stable")
    repeated = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    if len(repeated):
        first, second = order[repeated[0]] + 1, order[repeated[0] + 1] + 1
        raise ManifestError(
            f"{path}: lines {first} and {second} have the same cut id; ids must be unique"
        )


def store_paths(row: dict, folder: str) -> None:
    """Makes the paths of a cut's JSON form below `folder` relative to it, in place."""
    for holder, name in _paths(row):
        absolute = os.path.abspath(holder[name])
        below = absolute.startswith(folder + os.sep)
        holder[name] = os.path.relpath(absolute, folder) if below else absolute


def resolve_paths(row: dict, folder: str) -> None:
    """Makes the relative paths of a cut's JSON form absolute, in place."""
    for holder, name in _paths(row):
        holder[name] = os.path.join(folder, holder[name])


def _paths(row: dict):
    yield row["recording"]["sources"][0], "source"
    if row.get("features"):
        yield row["features"], "storage_path"
