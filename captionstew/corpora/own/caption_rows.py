"""A corpus of your own: a folder with audio files and captions.csv, or a folder of such folders.

    captions.csv    file,caption
                    audio/dog.wav,A dog barks twice.
    metadata.csv    file,split,licence,...        optional

Put the folder under the name that the list of corpora gives it; nothing has to be downloaded. The
table is named after the folder.

    python local/prepare_corpus.py own --corpus-dir download/mine --output-dir data/tables
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.captioned import Corpus, run
from captionstew.corpora.own.folder_table import HOME, folder_rows
from captionstew.corpora.release import Report


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """One row per caption; `--splits` chooses by metadata.csv's column of that name."""
    for row in folder_rows(args.corpus_dir, report):
        if not args.splits or row["split"] in args.splits:
            yield row


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--corpus-dir", type=Path)
    folder = parser.parse_known_args(argv)[0].corpus_dir
    name = folder.name if folder else "folder"
    run(Corpus(name=name, home=HOME, splits=(), default_splits=(), rows=rows), __doc__, argv)
