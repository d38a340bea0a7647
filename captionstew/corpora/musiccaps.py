"""MusicCaps: 10 s of AudioSet music with captions by musicians. Agostinelli et al., 2023.

Release: https://www.kaggle.com/datasets/googleai/musiccaps or
https://huggingface.co/datasets/google/MusicCaps, file musiccaps-public.csv (CC BY-SA 4.0), into
CORPUS_DIR. Audio: YouTube, named <ytid>.wav or <ytid>_<start>_<end>.wav. Split `train` is the part
outside AudioSet eval (2,663 clips), `eval` the part inside (2,858).

    ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset,
      is_audioset_eval
    -0Gj8-vB1q4,30,40,"/m/0140xf,...","['low quality', ...]","The ...",4,False,True

    python local/prepare_corpus.py musiccaps --corpus-dir download/musiccaps \\
        --output-dir data/tables --splits train
"""

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.captioned import Corpus, Part
from captionstew.corpora.fetch import YOUTUBE_STEPS, Hub, Steps
from captionstew.corpora.file_names import names_of_clip, youtube_names
from captionstew.corpora.keys import start_second, video_key, youtube_id, youtube_key
from captionstew.corpora.release import (
    EvaluationList,
    ReleaseError,
    Report,
    find_release_file,
    read_csv,
)

HOME = "https://www.kaggle.com/datasets/googleai/musiccaps"
FETCH = (Hub("google/MusicCaps", ("musiccaps-public.csv",)), Steps(YOUTUBE_STEPS))
FILES = ["musiccaps-public.csv"]
COLUMNS = ("ytid", "start_s", "end_s", "aspect_list", "caption", "is_audioset_eval")


def read_musiccaps(folder: Path, report: Report | None = None) -> Iterator[dict[str, str]]:
    """Rows of musiccaps-public.csv (five captions span lines) with `split`: eval if in AudioSet
    eval, else train.
    """
    path = find_release_file(folder, FILES, HOME)
    splits = {"True": "eval", "False": "train"}
    for row in read_csv(path, COLUMNS, report=report):
        if row["is_audioset_eval"] not in splits:
            raise ReleaseError(
                f"{path}: is_audioset_eval is {row['is_audioset_eval']!r}, expected True or False"
            )
        yield {**row, "split": splits[row["is_audioset_eval"]]}


SIZES = {"train": 2_663, "eval": 2_858}


def evaluation_list(corpora: Path, split: str) -> EvaluationList:
    """The videos of a split."""
    path = find_release_file(corpora / "musiccaps", FILES, HOME)
    rows = read_musiccaps(corpora / "musiccaps")
    clips = ((row["ytid"], [video_key(row["ytid"])]) for row in rows if row["split"] == split)
    return EvaluationList([path], clips, SIZES[split], HOME, (split,))


LICENSE = "CC-BY-SA-4.0"
LIT_PARTS = {"train": Part("train"), "valid": Part("eval", 500), "test": Part("eval", 500)}


def parse_aspects(text: str) -> list[str]:
    """The aspects, which the release writes as a Python list of strings."""
    try:
        aspects = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError) as error:
        raise ReleaseError(f"aspect_list is not a list of strings: {text!r}") from error
    return [str(aspect) for aspect in aspects]


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """One row per clip."""
    audio = AudioFolder(args.audio_dir, report, youtube_names)
    for row in read_musiccaps(args.corpus_dir, report):
        if row["split"] not in args.splits:
            continue
        with report.counting_bad_names(row["ytid"]):
            video, start, end = youtube_id(row["ytid"]), row["start_s"], row["end_s"]
            yield from report.row(
                row["caption"],
                "musiccaps",
                audio_key=youtube_key(video, start),
                audio_path=audio.named(
                    f"{video}_{start}_{end}.wav", names_of_clip(video, start_second(start))
                ),
                duration=float(end) - float(start),
                split=row["split"],
                license=LICENSE,
                aspects=parse_aspects(row["aspect_list"]),
            )


CORPUS = Corpus(
    name="musiccaps",
    home=HOME,
    splits=("train", "eval"),
    default_splits=("train", "eval"),
    rows=rows,
    extra=(pa.field("aspects", pa.list_(pa.string())),),
)
