"""Questions about recordings of your own: from questions.csv, or made from the labels in
metadata.csv.

    questions.csv   file,question,answer[,choices,task,description]
    dogs/1.wav,What animal is it?,dog

The mini corpus and any labelled folder work as they are; see captionstew/corpora/own/questions.py.

    python local/prepare_corpus.py ownqa --corpus-dir my_recordings --output-dir data/tables
"""

import argparse
from collections.abc import Iterator

from captionstew.corpora.captioned import Corpus
from captionstew.corpora.own.questions import folder_questions
from captionstew.corpora.release import Report
from captionstew.data.tables.question_table import QA_FIELDS


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """One row per question, of the splits asked for (default: all)."""
    for row in folder_questions(args.corpus_dir, report, args.seed):
        if not args.splits or row["split"] in args.splits:
            yield row


CORPUS = Corpus(
    name="ownqa",
    home="your own data: questions.csv with the columns file,question,answer",
    splits=(),
    default_splits=(),
    rows=rows,
    extra=QA_FIELDS,
    flags={"--seed": {"type": int, "default": 42, "help": "of the choices"}},
)
