"""A captioned corpus as data, and the program that writes its caption table."""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from captionstew.corpora.damage import Damaged
from captionstew.corpora.keys import IdentityError
from captionstew.corpora.release import MAX_DROPPED_SHARE, ReleaseError, Report
from captionstew.data.tables.caption_table import TableError, write_table
from captionstew.files import write_json


@dataclass(frozen=True)
class Part:
    """Clips to adapt to (LiT): the release's split, and how many of its clips to draw (None:
    all).
    """

    release_split: str
    clips: int | None = None


@dataclass(frozen=True)
class Corpus:
    """A captioned corpus; `rows` gives its captions."""

    name: str
    home: str  # where the release is to be had, shown when a file is missing
    splits: tuple[str, ...]  # the release's own names
    default_splits: tuple[str, ...]
    rows: Callable[[argparse.Namespace, Report], Iterator[dict]]
    extra: Sequence[pa.Field] = ()
    flags: dict[str, dict] = field(default_factory=dict)  # further flags: name -> argparse keywords


def get_parser(
    corpus: Corpus,
    description: str | None = None,
    audio: str = "CORPUS_DIR/audio",
    output: str | None = None,
) -> argparse.ArgumentParser:
    """The flags that the readers of all corpora have in common, and the corpus's own; `audio`: the
    default's name.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--corpus-dir", type=Path, required=True, help="folder of the release's text files"
    )
    parser.add_argument("--audio-dir", type=Path, help=f"folder of the audio (default: {audio})")
    parser.add_argument(
        "--output-dir",
        type=Path,
        required=True,
        help=f"receives {output or corpus.name + '.parquet'}",
    )
    parser.add_argument(
        "--splits",
        nargs="+",
        choices=corpus.splits or None,
        default=list(corpus.default_splits),
        help=f"default: {' '.join(corpus.default_splits) or 'all'}",
    )
    for flag, keywords in corpus.flags.items():
        parser.add_argument(flag, **keywords)
    return parser


def run(corpus: Corpus, description: str | None, argv: Sequence[str] | None = None) -> Path:
    """Read the release, write `<output-dir>/<name>.parquet` and `.report.json`, print what was read
    and dropped.
    """
    parser = get_parser(corpus, description)
    parser.add_argument(
        "--max-dropped-share",
        type=float,
        default=MAX_DROPPED_SHARE,
        help="of a file's rows that may be unusable or there twice; more stop the program",
    )
    args = parser.parse_args(argv)
    args.audio_dir = Path(os.path.abspath(args.audio_dir or args.corpus_dir / "audio"))
    table = args.output_dir / f"{corpus.name}.parquet"
    report = Report()

    def checked_rows() -> Iterator[dict]:
        yield from corpus.rows(args, report)
        report.require_whole(args.max_dropped_share)

    try:
        if not args.corpus_dir.is_dir():
            raise ReleaseError(
                f"{args.corpus_dir} is not a folder; get the release from {corpus.home}"
            )
        write_table(table, checked_rows(), corpus.extra)
    except Damaged as error:
        again = f"download it again from {corpus.home}"
        raise ReleaseError(f"{corpus.name}: {error}; {again}") from error
    except (ReleaseError, TableError, IdentityError, OSError) as error:
        raise ReleaseError(f"{corpus.name}: {error}") from error
    write_json(
        table.with_suffix(".report.json"),
        {"corpus": corpus.name, "splits": args.splits, **report.as_dict()},
    )
    print(f"{corpus.name}: wrote {table}\n{report}")
    return table
