"""The mini corpus: synthetic sounds, music and voices with captions, for demonstrations and tests.

Nothing has to be downloaded: it is made in CORPUS_DIR, unless it is there already, by
`captionstew.corpora.mini.make`. Its splits are train, valid and test.

    file,caption
    audio/events_0001.flac,A loud bell rings twice.

    python local/prepare_corpus.py mini --corpus-dir download/mini --output-dir data/tables \\
        --splits train
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

from captionstew.corpora.captioned import Corpus, get_parser, run
from captionstew.corpora.own.caption_rows import caption_rows
from captionstew.corpora.own.read import is_folder_corpus
from captionstew.corpora.own.split import SPLITS
from captionstew.corpora.release import Report


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """One row per caption."""
    for row in caption_rows(args.corpus_dir, report):
        if row["split"] in args.splits:
            yield row


CORPUS = Corpus(
    name="mini",
    home="nowhere: it is synthesised",
    splits=SPLITS,
    default_splits=SPLITS,
    rows=rows,
    flags={
        "--num-clips": {"type": int, "default": 1500, "help": "of a new mini corpus"},
        "--seed": {"type": int, "default": 0, "help": "of a new mini corpus"},
    },
)


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    args, _ = get_parser(CORPUS, __doc__).parse_known_args(argv)
    if not is_folder_corpus(args.corpus_dir):
        from captionstew.corpora.mini.make import make_mini_corpus

        make_mini_corpus(args.corpus_dir, num_clips=args.num_clips, seed=args.seed)
    run(CORPUS, __doc__, argv)
