#!/usr/bin/env python3
"""Gather the keys of all evaluation sets (leakage filter) and the starts of AudioSet
(consolidation).

Releases (list files only, no audio), one folder each in CORPORA_DIR:

    audiocaps/ clotho/ musiccaps/ paraspeechcaps/   as prepare_corpus.py reads them
    audioset/         eval_segments.csv, balanced_train_segments.csv, unbalanced_train_segments.csv
    audioset_strong/  audioset_train_strong.tsv, audioset_eval_strong.tsv
    vggsound/         test.csv
    fsd50k/           FSD50K.ground_truth/{dev,eval}.csv
    urbansound8k/     metadata/UrbanSound8K.csv
    voxceleb/         of `voxceleb2`: voxceleb2/dev/aac/..., or vox2_dev_utterances.txt (a line:
                      id00012/21Uxsk56VDQ/00001)
    clothoaqa/        clotho_aqa_{val,test}.csv
    airbench/         Foundation/Foundation_meta.json, Chat/Chat_meta.json

A row of AudioSet (no header, a blank after each comma):

    --4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_,/m/0bt9lr,/m/0jbk"

    python egs/captionstew/local/gather_evaluation_keys.py --corpora-dir download \\
        --output-dir data --sets audiocaps:test
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from captionstew.corpora.build.evaluation_audio import SCHEMA, evaluation_audio
from captionstew.corpora.build.evaluation_keys import (
    audioset_starts,
    gather_list,
    shipped,
)
from captionstew.corpora.release import ReleaseError, write_records
from captionstew.errors import run_main
from captionstew.files import write_json

KEYS = pa.schema([("evaluation_set", pa.string()), ("split", pa.string()), ("key", pa.string())])
HASHES = pa.schema([("list", pa.string()), ("hash", pa.uint64())])  # of keys that come with us
STARTS = pa.schema([("video", pa.string()), ("start", pa.int64())])


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora-dir", type=Path, required=True, help="one folder per corpus")
    parser.add_argument(
        "--audio-dir", type=Path, help="has audio as <name>/ (default: in the releases' folders)"
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        required=True,
        help="evaluation_keys.parquet, evaluation_audio.parquet, audioset_starts.parquet",
    )
    parser.add_argument(
        "--sets", nargs="*", default=[], metavar="NAME:SPLIT", help="evaluation lists to read"
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help=(
            "go on without lists that are not there or not whole; the report says which"
            " evaluations are then unprotected"
        ),
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    lists = {entry: gather_list(args.corpora_dir, *entry.split(":", 1)) for entry in args.sets}
    missing = {entry: found.problem for entry, found in lists.items() if found.problem}
    if missing and not args.allow_missing:
        lines = "\n".join(f"  {entry}: {problem}" for entry, problem in missing.items())
        sys.exit(
            "evaluation lists are missing or not whole; get them, take them out of the list of"
            f" corpora, or pass --allow-missing:\n{lines}"
        )
    rows = [
        dict(zip(KEYS.names, (*entry.split(":", 1), key), strict=True))
        for entry, found in lists.items()
        for key in found.keys
    ]
    write_records(args.output_dir / "evaluation_keys.parquet", KEYS, iter(rows))
    standing_in = {entry: shipped(*entry.split(":", 1)) for entry in missing}
    hashes = (
        {"list": entry, "hash": value}
        for entry, (found, _) in standing_in.items()
        for value in found.tolist()
    )
    write_records(args.output_dir / "evaluation_hashes.parquet", HASHES, hashes)
    starts = (
        {"video": video, "start": start}
        for video, start in sorted(set(audioset_starts(args.corpora_dir)))
    )
    write_records(args.output_dir / "audioset_starts.parquet", STARTS, starts)
    unheard: dict[str, str] = {}
    there = {entry for entry, found in lists.items() if found.clips}
    audio = heard(args.corpora_dir, args.audio_dir, there, unheard)
    heard_clips = write_records(args.output_dir / "evaluation_audio.parquet", SCHEMA, audio)
    write_json(
        args.output_dir / "evaluation_lists.json",
        {
            "missing": missing,
            "shipped": {
                entry: (len(found), whole) for entry, (found, whole) in standing_in.items()
            },
            "unheard": unheard,
            "sets": sorted(args.sets),
        },
    )
    print(
        f"{len(rows)} evaluation keys of {len(lists) - len(missing)} lists, {len(missing)} missing"
        f" or not whole; {heard_clips} of their clips have audio to compare with"
    )


def heard(
    corpora: Path, audio_dir: Path | None, lists: set[str], unheard: dict[str, str]
) -> Iterator[dict]:
    """The audio of all lists; those that cannot be read go to `unheard` with the reason."""
    for entry in sorted(lists):
        try:
            yield from evaluation_audio(corpora, audio_dir, entry)
        except ReleaseError as error:
            unheard[entry] = str(error)


if __name__ == "__main__":
    run_main(main)
