"""MagnaTagATune: 29 s of songs with tags by players of a game, the 50 most frequent tags. Law et
al., 2009.

Release: https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset, annotations_final.csv and the
MP3 folders 0 to 9 and a to f (three zip parts to join) into CORPUS_DIR. `--split public` is by
folder, which holds whole albums: 0 to b train, c validates, d to f test. Clips without any of the
50 tags are left out, as everywhere: of 25,863 clips 1,529 remain to validate and 4,332 to test. The
paper has 19,425 clips to train and 4,856 to test, and does not say which: `--split paper` draws a
fifth of the clips with tags to test and a twentieth of the rest to validate, so albums are in
several parts. Three MP3 files of the release cannot be decoded. `custom.labels` is the list of
tags.

    "clip_id"  "no voice"  "singer"  ...  "mp3_path"             tab-separated, 188 tags of 0 or 1
    "2"        "0"         "0"            "f/american_bach_soloists-...-01-bwv54__i_aria-30-59.mp3"

    python local/prepare_corpus.py magnatagatune --corpus-dir download/magnatagatune \\
        --output-dir data/magnatagatune
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.labelled import VALID_SHARE, LabelledClip, LabelledCorpus, paper_split
from captionstew.corpora.release import (
    ReleaseError,
    Report,
    find_release_file,
    read_csv,
)

HOME = "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset"


# The 50 most frequent tags, the most frequent first, as nearly all code orders them.
MAGNATAGATUNE_TAGS = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast",
    "piano", "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male",
    "singing", "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman",
    "male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man", "classic", "choir", "voice",
    "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello", "no voice", "weird",
    "country", "female voice", "metal", "choral",
)  # fmt: skip


SPLITS = dict.fromkeys("0123456789ab", "train") | {"c": "valid"} | dict.fromkeys("def", "test")
PAPER_TEST_SHARE = 4856 / (19425 + 4856)


def read(args: argparse.Namespace, report: Report) -> tuple[list[str], Iterator[LabelledClip]]:
    return list(MAGNATAGATUNE_TAGS), clips(args, report)


def clips(args: argparse.Namespace, report: Report) -> Iterator[LabelledClip]:
    audio = AudioFolder(args.audio_dir, report)
    path = find_release_file(args.corpus_dir, ["annotations_final.csv"], HOME)
    listed = list(tagged(path, report))
    if args.split == "paper":
        test = round(PAPER_TEST_SHARE * len(listed))
        valid = round(VALID_SHARE * (len(listed) - test))
        splits = paper_split((key for key, _, _ in listed), valid, test)
    else:
        splits = {key: SPLITS[place.split("/")[0]] for key, place, _ in listed}
    for key, place, tags in listed:
        yield LabelledClip(key, audio.path_in_tree(place), splits[key], {"labels": tags})


def tagged(path: Path, report: Report) -> Iterator[tuple[str, str, list[str]]]:
    """(key, path in the release, tags) of the clips that have any of the 50 tags."""
    for row in read_csv(path, ("clip_id", *MAGNATAGATUNE_TAGS, "mp3_path"), delimiter="\t"):
        if row["mp3_path"].split("/")[0] not in SPLITS:
            raise ReleaseError(
                f"{path}: {row['mp3_path']!r} does not lie in one of the folders 0 to 9 and a to f"
            )
        tags = [tag for tag in MAGNATAGATUNE_TAGS if row[tag] == "1"]
        if tags:
            yield f"magnatagatune:{row['clip_id']}", row["mp3_path"], tags
        else:
            report.drop("none of the 50 tags", row["mp3_path"])


CORPUS = LabelledCorpus(name="magnatagatune", home=HOME, read=read, has_paper_split=True)
