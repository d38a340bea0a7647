"""A corpus of your own: a folder with audio files and captions.csv, or a folder of such folders.

    captions.csv    file,caption
                    audio/dog.wav,A dog barks twice.
    metadata.csv    file,split,fold,speaker,licence,...        optional

Put the folder under the name that the list of corpora gives it; nothing has to be downloaded. The
table is named after the folder. Splits are train, valid and test, by the rule of `split.py`.

    python local/prepare_corpus.py own --corpus-dir download/mine --output-dir data/tables
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from captionstew.corpora.captioned import Corpus, run
from captionstew.corpora.own.read import (
    CAPTIONS,
    Clip,
    FolderReport,
    folder_name,
    is_folder_corpus,
    read_clips,
)
from captionstew.corpora.own.split import SPLITS, choose_splits
from captionstew.corpora.release import ReleaseError, Report

HOME = "your own data: a table with the columns file,caption"


@dataclass(frozen=True)
class OwnClip:
    """A clip of a user's folder as tables name it."""

    clip: Clip
    split: str
    audio_key: str

    @property
    def columns(self) -> dict:
        """What every table says of a clip."""
        facts = self.clip.facts
        return {
            "audio_key": self.audio_key,
            "audio_path": str(self.clip.path.absolute()),
            "split": self.split,
            "license": facts.get("licence") or facts.get("license") or "unknown",
        }


def own_clips(folder: Path, report: Report, tables: tuple[str, ...] = (CAPTIONS,)) -> list[OwnClip]:
    """The clips of a folder with their splits; what cannot be used is counted in `report`.

    Raises FolderError for a folder or a table that cannot be read.
    """
    found = FolderReport(str(folder))
    clips = read_clips(folder, found, tables, expect_missing=True)
    for rejected in found.rejected:
        report.drop(rejected.kind, rejected)
    for file in found.without_row:
        report.drop("audio file that no table names", file)
    report.cleaned[plain_name(folder_name(folder))] += len(found.cleaned)
    splits = choose_splits([(clip.source, clip.key, clip.facts) for clip in clips])
    name = plain_name(folder_name(folder)).lower()
    single = any((folder / table).is_file() for table in tables)
    return [
        OwnClip(clip, split, f"{name}:{clip.file if single else clip.key}")
        for clip, split in zip(clips, splits, strict=True)
    ]


def caption_rows(folder: Path, report: Report | None = None) -> Iterator[dict]:
    """One row per caption. Raises ReleaseError for a folder without captions.csv."""
    report = report or Report()
    if not is_folder_corpus(folder):
        raise ReleaseError(f"{folder}: no {CAPTIONS} here or in a subfolder ({HOME})")
    for own in own_clips(folder, report):
        for caption in own.clip.captions:
            yield from report.row(caption, plain_name(own.clip.source), **own.columns)


def plain_name(name: str) -> str:
    """A folder's name as a source: letters, digits and _ only."""
    return "".join(
        character if character.isalnum() and character.isascii() else "_" for character in name
    )


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """The caption rows of the splits asked for (default: all)."""
    for row in caption_rows(args.corpus_dir, report):
        if not args.splits or row["split"] in args.splits:
            yield row


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--corpus-dir", type=Path)
    folder = parser.parse_known_args(argv)[0].corpus_dir
    name = folder_name(folder) if folder else "folder"
    run(Corpus(name=name, home=HOME, splits=SPLITS, default_splits=(), rows=rows), __doc__, argv)
