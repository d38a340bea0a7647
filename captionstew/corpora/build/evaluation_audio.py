"""The audio of the evaluation lists, as far as it is there: what pretraining may not hear even
under another name.

Keys tell recordings apart only where releases name them alike. The audio check decodes these files
as well, and leaves out pretraining clips that hold the same samples.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from captionstew.corpora import known
from captionstew.corpora.build.evaluation_keys import find_list, own_evaluation_clips
from captionstew.corpora.captioned import Corpus, get_parser
from captionstew.corpora.labelled import LabelledCorpus
from captionstew.corpora.own.audio_names import audio_files
from captionstew.corpora.release import ReleaseError, Report
from captionstew.data.tables.clip_table import FILE

SCHEMA = pa.schema([("list", pa.string()), ("audio_key", pa.string()), ("files", pa.list_(FILE))])


def evaluation_audio(corpora: Path, audio_dir: Path | None, entry: str) -> Iterator[dict]:
    """Rows of SCHEMA, one for every clip of the list `<name>:<split>` whose file is there.

    The audio lies where the corpus' reader looks for it, or in `audio_dir`/<name>. Raises
    ReleaseError where there is audio but the release cannot be read.
    """
    name, split = entry.split(":", 1)
    for key, path in dict.fromkeys(_clips(corpora, audio_dir, name, split)):
        if os.path.isfile(path):
            file = {"source": name, "path": path, "offset": 0.0, "duration": None}
            yield {"list": entry, "audio_key": key, "files": [file]}


def _clips(
    corpora: Path, audio_dir: Path | None, name: str, split: str
) -> Iterator[tuple[str, str]]:
    """(key, path where the audio is or should be) of the clips of a list."""
    if not known.is_evaluated(name):
        for own in own_evaluation_clips(corpora / name, split):
            yield own.audio_key, own.columns["audio_path"]
        return
    corpus = getattr(known.load(name), "CORPUS", None)
    release = corpora / known.folder(name)
    audio = audio_dir / name if audio_dir else release
    if corpus is None or next(audio_files(audio), None) is None:
        return
    splits = find_list(corpora, name, split).audio_splits
    if isinstance(corpus, LabelledCorpus):
        args = argparse.Namespace(corpus_dir=release, audio_dir=audio.absolute(), splits=splits)
        _, clips = corpus.read(args, Report())
        yield from ((clip.key, clip.path) for clip in clips if clip.split in splits)
    else:
        yield from _captioned(corpus, release, audio.absolute(), splits)


def _captioned(
    corpus: Corpus, release: Path, audio: Path, splits: Sequence[str]
) -> Iterator[tuple[str, str]]:
    flags = ["--corpus-dir", str(release), "--output-dir", ".", "--splits", *splits]
    args = get_parser(corpus).parse_args(flags)
    args.audio_dir = audio
    args.allow_missing_ids = True  # Clotho's: what it stands for is asked of training clips
    versions = corpus.flags.get("--version", {}).get("choices", (None,))
    for version in versions:
        args.version = version
        try:
            yield from (
                (row["audio_key"], row["audio_path"]) for row in corpus.rows(args, Report())
            )
            return
        except ReleaseError:
            if version == versions[-1]:
                raise
