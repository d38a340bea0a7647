"""The data contract: lhotse cuts with captions, in an indexed JSONL manifest.

    from captionstew.data.cuts import open_cuts
    cuts = open_cuts("data/manifests/cuts_train.jsonl")
    cuts[1234].supervisions[0].custom["captions"]    # constant time, at any size

A cut is a `MonoCut` with one supervision whose `custom` holds `captions` (list of str), `sources`
(the corpus of each caption), `audio_key` (str, the clip's identity) and, for labelled sets,
`label`, `labels`, `fold`, `speaker`, ... The cut's duration is the true one: a clip shorter than
0.25 s is padded when it is read, and the sampler counts the padding. Audio is read with
`captionstew.data.audio` (channels averaged, whatever the cut's `channel` says).

Paths: an audio file below the manifest's own folder is stored relative to that folder, so the
folder may be moved or copied as a whole; any other file is stored absolute, so the manifest alone
may be moved.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
from tqdm import tqdm

from captionstew.data.audio import MAX_DURATION, AudioInfo
from captionstew.data.manifests.index import IndexedCuts, Rows, write_index
from captionstew.data.manifests.rows import (
    ManifestError,
    check_row,
    store_paths,
)
from captionstew.files import atomic_write

if TYPE_CHECKING:  # lhotse takes two seconds to import
    from lhotse import MonoCut


def make_cut(
    audio_key: str,
    audio_path: str | os.PathLike,
    info: AudioInfo,
    captions: Sequence[str],
    sources: Sequence[str],
    labels: dict | None = None,
    *,
    cut_id: str | None = None,
    offset: float = 0.0,
    duration: float | None = None,
) -> "MonoCut":
    """One clip, its captions and the corpus of each; `labels` join the supervision's `custom`.

    `offset` and `duration` (seconds) cut the clip out of a longer recording; the default is the
    whole file. Raises ManifestError when the result breaks the contract.
    """
    from lhotse.serialization import deserialize_item

    return deserialize_item(
        cut_row(
            audio_key,
            audio_path,
            info,
            captions,
            sources,
            labels,
            cut_id=cut_id,
            offset=offset,
            duration=duration,
        )
    )


def cut_row(
    audio_key: str,
    audio_path: str | os.PathLike,
    info: AudioInfo,
    captions: Sequence[str],
    sources: Sequence[str],
    labels: dict | None = None,
    *,
    cut_id: str | None = None,
    offset: float = 0.0,
    duration: float | None = None,
) -> dict:
    """The JSON form of `make_cut`'s cut, without the cut, which takes longer to make than its row
    to write.
    """
    cut_id = cut_id or safe_id(audio_key)
    channels = list(range(info.channels))
    recording = {
        "id": cut_id,
        "sources": [{"type": "file", "channels": channels, "source": os.path.abspath(audio_path)}],
        "sampling_rate": info.sampling_rate,
        "num_samples": info.num_samples,
        "duration": info.duration,
        "channel_ids": channels,
    }
    duration = info.duration - offset if duration is None else duration
    custom = {"captions": list(captions), "sources": list(sources), "audio_key": audio_key} | (
        labels or {}
    )
    supervision = {
        "id": cut_id,
        "recording_id": cut_id,
        "start": 0.0,
        "duration": duration,
        "channel": 0,
    }
    row = {"id": cut_id, "start": offset, "duration": duration, "channel": 0}
    row |= {
        "supervisions": [supervision | {"custom": custom}],
        "recording": recording,
        "type": "MonoCut",
    }
    check_row(row)
    return row


def audio_part(cut: "MonoCut") -> tuple[str, float, float | None]:
    """(path, offset, duration) for `read_audio`; duration None means to the end of the file."""
    whole = cut.start == 0 and cut.duration >= cut.recording.duration
    return cut.recording.sources[0].source, cut.start, None if whole else cut.duration


def safe_id(audio_key: str) -> str:
    """A cut id from any key: letters, digits, `.`, `_` and `-` only, usable as a file name, and
    unique.

    `esc10/audio/dog/1-100032-A.ogg` -> `esc10-audio-dog-1-100032-A.ogg-` + eight hexadecimal digits
    of the key's hash, which keep keys apart that look the same without their blanks and accents.
    """
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", audio_key).strip("-.")[-80:]
    return f"{readable}-{hashlib.blake2b(audio_key.encode(), digest_size=4).hexdigest()}".lstrip(
        "-."
    )


def validate_cut(cut: "MonoCut") -> None:
    """Raises ManifestError that says what is missing or wrong."""
    check_row(cut.to_dict())


def write_cuts(
    path: str | os.PathLike, cuts: Iterable["MonoCut | dict"], progress: bool = False
) -> int:
    """Writes the manifest and its index; returns the number of cuts, which may be given as rows
    (`cut_row`).

    The file appears complete or not at all, and the same cuts give the same bytes. Raises
    ManifestError for a cut that breaks the contract and for two cuts with one id.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = str(path.parent.resolve())
    rows, digest = Rows(), hashlib.sha256()
    with atomic_write(path) as file:
        for number, cut in enumerate(
            tqdm(cuts, desc=path.name, unit="cut", disable=not progress), start=1
        ):
            row = cut if isinstance(cut, dict) else cut.to_dict()
            try:
                check_row(row)
            except ManifestError as error:
                raise ManifestError(f"{path}: cut {number} ({row.get('id')}): {error}") from None
            store_paths(row, folder)
            line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
            file.write(line)
            digest.update(line)
            rows.add(row, len(line))
        columns = rows.columns(path)
    write_index(path, digest.hexdigest(), columns)
    return len(columns.durations)


def open_cuts(path: str | os.PathLike) -> IndexedCuts:
    """The manifest for random access; builds its index when there is no valid one beside it.

    Raises ManifestError with the file and line number of the first broken row.
    """
    return IndexedCuts.open(path)


def filter_by_duration(
    cuts: IndexedCuts, min_duration: float = 0.0, max_duration: float = MAX_DURATION
) -> IndexedCuts:
    """The cuts of `min_duration` to `max_duration` seconds; prints how many are left out and
    why.
    """
    short, long = cuts.durations < min_duration, cuts.durations > max_duration
    if not (short | long).any():
        return cuts
    kept = cuts.select(np.flatnonzero(~(short | long)))
    print(
        f"{cuts.path}: {len(kept)} of {len(cuts)} cuts kept; left out: "
        f"{long.sum()} longer than {max_duration} s, {short.sum()} shorter than {min_duration} s"
    )
    return kept
