"""AIR-Bench: the questions that the study evaluates on. Yang et al., ACL 2024.

Release: https://huggingface.co/datasets/qyang1021/AIR-Bench-Dataset, Foundation/ and Chat/ with
<Part>_meta.json and the audio in <Part>/<task_name>_<dataset_name>/<path>. `foundation` is multiple
choice (emotion, gender and age of the speaker), `chat` open questions that a judge scores.

    {"path": "x.wav", "question": "...", "choice_a": "angry", "choice_b": "sad", "answer_gt": "sad",
     "task_name": "Speaker_Emotion_Recontion", "dataset_name": "iemocap", "uniq_id": 17}

    python local/prepare_corpus.py airbench --corpus-dir download/airbench \\
        --audio-dir download/airbench \\
        --output-dir data/tables
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.captioned import Corpus
from captionstew.corpora.clotho import _clotho_ids, clotho_key
from captionstew.corpora.keys import IdentityError, video_key
from captionstew.corpora.questions import qa_row
from captionstew.corpora.release import (
    AudioFolder,
    ReleaseError,
    Report,
    find_release_file,
    read_json_list,
)
from captionstew.data.tables.question_table import QA_FIELDS

HOME = "https://huggingface.co/datasets/qyang1021/AIR-Bench-Dataset"


def evaluation_keys(corpora: Path, split: str) -> Iterator[str]:
    """File names, Freesound ids and videos of both parts."""
    metadata = _clotho_ids(corpora)
    for part in ("Foundation", "Chat"):
        path = find_release_file(
            corpora / "airbench", [f"{part}/{part}_meta.json", f"{part}_meta.json"], HOME
        )
        for record in read_json_list(path):
            name = Path(record["path"]).name
            yield f"clotho:{name}"
            if name in metadata:
                yield clotho_key(name, metadata[name])
            try:
                yield video_key(name)
            except IdentityError:
                continue  # a file of a corpus that is not on YouTube


LICENSE = "CC-BY-NC-4.0"
PARTS = {"foundation": "Foundation", "chat": "Chat"}
TASKS = {  # spelt as released
    "Speaker_Emotion_Recontion": "qa_emotion",
    "Speaker_Gender_Recognition": "qa_gender",
    "Speaker_Age_Prediction": "qa_age",
    "sound_QA": "qa_sound",
    "music_QA": "qa_music",
}
GENERATION_TASKS = {"sound_generation_QA": "qa_sound", "music_generation_analysis_QA": "qa_music"}
NEEDED = ("path", "question", "answer_gt", "task_name", "dataset_name", "uniq_id")


def audio_key(dataset: str, stem: str) -> str:
    """The key that the training sets give the same recording, where AIR-Bench took it from one of
    them.
    """
    dataset = dataset.lower()
    for name, namespace in (
        ("common_voice", "commonvoice"),
        ("iemocap", "iemocap"),
        ("meld", "meld"),
    ):
        if dataset.startswith(name):
            return f"{namespace}:{stem}"
    return f"clotho:{stem}.wav" if dataset.startswith("clotho") else f"airbench:{dataset}:{stem}"


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """One row per question of the tasks in use."""
    audio = AudioFolder(args.audio_dir)
    tasks = TASKS | (GENERATION_TASKS if args.generation_tasks else {})
    for split in args.splits:
        part = PARTS[split]
        names = [f"{part}/{part}_meta.json", f"{part}_meta.json"]
        path = find_release_file(args.corpus_dir, names, HOME)
        for record in read_json_list(path):
            if missing := [name for name in NEEDED if record.get(name) is None]:
                raise ReleaseError(f"{path}: a record has no {missing[0]!r}: {str(record)[:200]}")
            task, dataset = record["task_name"], record["dataset_name"]
            if task not in tasks:
                continue
            name = f"{part}/{task}_{dataset}/{record['path']}"
            stem = record["path"].rpartition("/")[2].rpartition(".")[0]
            letters = [record.get(f"choice_{letter}") for letter in "abcd"]
            yield from qa_row(
                report,
                f"airbench_{split}",
                question=record["question"],
                answer=record["answer_gt"],
                choices=[choice for choice in letters if choice],
                task=tasks[task],
                item=f"airbench-{split}-{record['uniq_id']}",
                dataset=f"{task}_{dataset}",
                description=str(record.get("meta_info") or ""),
                audio_key=audio_key(dataset, stem),
                audio_path=audio.path_in_tree(name),
                split=split,
                license=LICENSE,
            )


CORPUS = Corpus(
    name="airbench",
    home=HOME,
    splits=tuple(PARTS),
    default_splits=tuple(PARTS),
    rows=rows,
    extra=QA_FIELDS,
    flags={
        "--generation-tasks": {
            "action": "store_true",
            "help": (
                "also the questions on generated audio (the benchmark's own sound and music scores"
                " join them)"
            ),
        }
    },
)
