"""Questions about a speaker's emotion, gender and age, made from the labels of five speech corpora.

The study's own set of this kind is not published (160,000 pairs from Common Voice, IEMOCAP,
CREMA-D, RAVDESS and MELD with fixed templates); this one follows its description with templates of
ours. CORPUS_DIR holds one folder per corpus, as released: commonvoice (train.tsv, clips/), iemocap
(Session1/...), cremad (VideoDemographics.csv, SentenceFilenames.csv, AudioWAV/), ravdess
(Actor_01/...), meld (train_sent_emo.csv, train_splits/ with the sound taken out of the films). The
same labels and seed give the same table.

    python local/prepare_corpus.py speakerqa --corpus-dir download/speakerqa \\
        --output-dir data/tables
"""

import argparse
from collections.abc import Iterator

from captionstew.corpora.captioned import Corpus
from captionstew.corpora.questions import qa_row
from captionstew.corpora.release import Report
from captionstew.corpora.speaker_questions import MAX_REPEATS, speaker_questions
from captionstew.corpora.speaker_readers import HOMES, LICENSES, speaker_clips
from captionstew.data.tables.question_table import QA_FIELDS

DEFAULT_PAIRS = 160_000  # paper, Table 8


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """One row per pair, by attribute, label and corpus."""
    clips = [
        clip
        for corpus in args.corpora
        for clip in speaker_clips(corpus, args.corpus_dir / corpus, report, args.commonvoice_list)
    ]
    for found in speaker_questions(clips, args.num_pairs, args.seed, args.max_repeats):
        clip = found.clip
        yield from qa_row(
            report,
            f"speakerqa_{clip.corpus}",
            question=found.question,
            answer=found.answer,
            choices=found.choices,
            task=f"qa_{found.attribute}",
            item=f"{clip.audio_key}-{found.attribute}-{found.repeat}",
            audio_key=clip.audio_key,
            audio_path=clip.audio_path,
            split="train",
            license=LICENSES[clip.corpus],
        )


CORPUS = Corpus(
    name="speakerqa",
    home="; ".join(HOMES.values()),
    splits=("train",),
    default_splits=("train",),
    rows=rows,
    extra=QA_FIELDS,
    flags={
        "--corpora": {
            "nargs": "+",
            "choices": tuple(HOMES),
            "default": list(HOMES),
            "help": "default: all five",
        },
        "--num-pairs": {
            "type": int,
            "default": DEFAULT_PAIRS,
            "help": f"questions in all (default {DEFAULT_PAIRS})",
        },
        "--max-repeats": {
            "type": int,
            "default": MAX_REPEATS,
            "help": f"questions about one attribute of a clip, at most (1 to {MAX_REPEATS})",
        },
        "--commonvoice-list": {
            "default": "train",
            "help": "list of Common Voice to use: train, validated, ...",
        },
        "--seed": {
            "type": int,
            "default": 42,
            "help": "of the choice of clips, wordings and choices",
        },
    },
)
