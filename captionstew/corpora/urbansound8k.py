"""UrbanSound8K: city sounds from Freesound in ten classes and ten folds."""

from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.fetch import METADATA, Steps
from captionstew.corpora.keys import freesound_key
from captionstew.corpora.release import EvaluationList, find_release_file, read_csv

HOME = "https://urbansounddataset.weebly.com/urbansound8k.html"
FETCH = (Steps(f"UrbanSound8K.tar.gz from {HOME}; metadata/UrbanSound8K.csv of it", METADATA),)
FILES = ["metadata/UrbanSound8K.csv", "UrbanSound8K.csv"]


def read_urbansound8k(folder: Path) -> Iterator[tuple[str, str, int, str]]:
    """(slice file, Freesound id, fold, class)."""
    path = find_release_file(folder, FILES, HOME)
    for row in read_csv(path, ("slice_file_name", "fsID", "fold")):
        yield (
            row["slice_file_name"],
            row["fsID"],
            int(row["fold"]),
            row.get("class") or row["class_name"],
        )


SLICES = 8_732


def evaluation_list(corpora: Path, split: str) -> EvaluationList:
    """The Freesound ids of all slices."""
    folder = corpora / "urbansound8k"
    clips = ((name, [freesound_key(sound)]) for name, sound, _, _ in read_urbansound8k(folder))
    return EvaluationList([find_release_file(folder, FILES, HOME)], clips, SLICES, HOME)
