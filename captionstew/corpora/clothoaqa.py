"""ClothoAQA: crowd-sourced questions on Clotho recordings. Lipping et al., EUSIPCO 2022.

Release: https://zenodo.org/records/6473207, clotho_aqa_<split>.csv into CORPUS_DIR and
audio_files.zip unpacked into AUDIO_DIR. Three annotators answered every question; their answers are
merged into one row: the answer that most of them gave, of equally frequent ones the first in the
file. Train on the split `train` only: AIR-Bench asks about the others.

    file_name,QuestionText,answer
    River mouth.wav,Is there water?,yes

    python local/prepare_corpus.py clothoaqa --corpus-dir download/clothoaqa \\
        --output-dir data/tables
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.captioned import Corpus
from captionstew.corpora.clotho import all_metadata, named_clips, unnamed_clips
from captionstew.corpora.fetch import Steps, Zenodo
from captionstew.corpora.questions import qa_row
from captionstew.corpora.release import (
    EvaluationList,
    Report,
    find_release_file,
    read_csv,
)
from captionstew.data.captions import normalise_caption
from captionstew.data.tables.question_table import QA_FIELDS

HOME = "https://zenodo.org/records/6473207"
FETCH = (
    Zenodo(6473207, ("*.csv",)),
    Zenodo(6473207, ("audio_files.zip",), "audio"),
    Steps("unzip audio_files.zip into audio/"),
)


COLUMNS = ("file_name", "QuestionText", "answer")
FILES = {"train": 1_174, "val": 344, "test": 473}  # audio files of a split


def evaluation_list(corpora: Path, split: str) -> EvaluationList:
    """File names and Freesound ids of a split."""
    path = find_release_file(corpora / "clothoaqa", [f"clotho_aqa_{split}.csv"], HOME)
    rows = read_csv(path, ("file_name",), encoding="iso-8859-1")
    names = list(dict.fromkeys(row["file_name"].strip() for row in rows))
    metadata = all_metadata(corpora)
    clips = chain(named_clips(names, metadata), unnamed_clips(corpora, names, metadata))
    return EvaluationList([path], clips, FILES[split], HOME, (split,))


LICENSE = "MIT (questions); the recordings' own Freesound licences"


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """One row per question, in the order of the release."""
    audio = AudioFolder(args.audio_dir, report)
    for split in args.splits:
        path = find_release_file(args.corpus_dir, [f"clotho_aqa_{split}.csv"], HOME)
        answers: dict[tuple[str, str], Counter[str]] = {}
        for row in read_csv(path, COLUMNS, encoding="iso-8859-1"):
            asked = row["file_name"].strip(), normalise_caption(row["QuestionText"])
            # The reference code compares in upper case, so case says nothing.
            answers.setdefault(asked, Counter())[normalise_caption(row["answer"]).lower()] += 1
        for number, ((name, question), votes) in enumerate(answers.items()):
            yield from qa_row(
                report,
                "clothoaqa",
                question=question,
                answer=votes.most_common(1)[0][0],  # of equal counts the one that came first
                task="qa_sound",
                item=f"clothoaqa-{split}-{number}",
                audio_key=f"clotho:{name}",
                audio_path=audio.path(name),
                split=split,
                license=LICENSE,
            )


CORPUS = Corpus(
    name="clothoaqa",
    home=HOME,
    splits=("train", "val", "test"),
    default_splits=("train",),
    rows=rows,
    extra=QA_FIELDS,
)
