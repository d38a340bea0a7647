#!/usr/bin/env python3
"""Manifests of question-answer tables: checks the audio, holds clips out, keeps evaluation clips
out of training.

    ./local/make_question_manifests.py --tables data/tables/*.parquet --output-dir data --num-jobs 8

Writes cuts_train.jsonl, cuts_valid.jsonl, one cuts_<split>.jsonl per evaluation split (foundation,
chat, test), rejected.csv and report.json.
"""

import argparse
from pathlib import Path

from captionstew.corpora.build.question_manifests import write_qa_manifests
from captionstew.data.audio import MAX_DURATION
from captionstew.errors import run_main


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--tables",
        type=Path,
        nargs="+",
        required=True,
        help="tables that local/prepare_*qa.py wrote",
    )
    parser.add_argument("--output-dir", type=Path, required=True, help="where the manifests go")
    parser.add_argument(
        "--valid-share", type=float, default=0.005, help="of the training clips, if none are given"
    )
    parser.add_argument(
        "--max-duration", type=float, default=MAX_DURATION, help="longest clip used (s)"
    )
    parser.add_argument("--seed", type=int, default=42, help="of the validation clips")
    parser.add_argument("--num-jobs", type=int, default=2, help="processes that check the audio")
    parser.add_argument(
        "--allow-missing",
        choices=("true", "false"),
        default="false",
        help="evaluate without clips that cannot be read",
    )
    args = parser.parse_args()
    report = write_qa_manifests(
        args.tables,
        args.output_dir,
        valid_share=args.valid_share,
        seed=args.seed,
        num_jobs=args.num_jobs,
        max_duration=args.max_duration,
        allow_missing=args.allow_missing == "true",
    )
    for split, counts in report["splits"].items():
        tasks = ", ".join(f"{task} {count}" for task, count in counts["tasks"].items())
        print(f"{split}: {counts['clips']} clips, {counts['questions']} questions ({tasks})")
    left_out = (
        ", ".join(f"{count} {kind}" for kind, count in report["rejected"].items()) or "nothing"
    )
    print(f"left out: {left_out} (listed in {args.output_dir / 'rejected.csv'})")


if __name__ == "__main__":
    run_main(main)
