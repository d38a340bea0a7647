"""UrbanSound8K: city sounds from Freesound in ten classes and ten folds."""

from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.keys import freesound_key
from captionstew.corpora.release import find_release_file, read_csv

HOME = "https://urbansounddataset.weebly.com/urbansound8k.html"


def read_urbansound8k(folder: Path) -> Iterator[tuple[str, str, int, str]]:
    """(slice file, Freesound id, fold, class)."""
    names = ["metadata/UrbanSound8K.csv", "UrbanSound8K.csv"]
    path = find_release_file(folder, names, HOME)
    for row in read_csv(path, ("slice_file_name", "fsID", "fold")):
        yield (
            row["slice_file_name"],
            row["fsID"],
            int(row["fold"]),
            row.get("class") or row["class_name"],
        )


def evaluation_keys(corpora: Path, split: str) -> Iterator[str]:
    """The Freesound ids of all slices."""
    for _, sound_id, _, _ in read_urbansound8k(corpora / "urbansound8k"):
        yield freesound_key(sound_id)
