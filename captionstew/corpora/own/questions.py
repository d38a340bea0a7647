"""Questions from the labels of a folder of recordings, or from its own questions.csv.

    questions.csv   file,question,answer[,choices,task,description]      choices separated by ";"
    metadata.csv    file,domain,label,emotion,gender,age,instrument,...  without a questions.csv

`domain` is sound_event, music or speech. Emotion, gender and age become multiple choice among the
values that the folder has (up to four), a sound's label and an instrument become open questions.
The folder may be a folder of such folders. Files, labels and splits are those that every other
reader of the folder sees (`read.py`, `split.py`).
"""

import random
from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora.own.audio_names import AudioNames, normal_name
from captionstew.corpora.own.caption_rows import OwnClip, own_clips, plain_name
from captionstew.corpora.own.csv_rows import read_rows
from captionstew.corpora.own.read import CAPTIONS, METADATA, QUESTIONS, folder_name
from captionstew.corpora.questions import MAX_CHOICES, TASKS, qa_row
from captionstew.corpora.release import ReleaseError, Report
from captionstew.hashing import stable_hash

CHOICE_QUESTIONS = {
    "emotion": "Which emotion does the speaker express?",
    "gender": "Whose voice is it?",
    "age": "How old does the speaker sound?",
}
OPEN_QUESTIONS = {
    "sound_event": "What makes the sound in this recording?",
    "music": "Which instrument is playing?",
}
TASK_OF_DOMAIN = {"sound_event": "qa_sound", "music": "qa_music"}


def folder_questions(folder: Path, report: Report, seed: int) -> Iterator[dict]:
    """Rows of the question-answer table; raises ReleaseError for a folder without either table."""
    tables = (QUESTIONS, METADATA)
    places = [folder] if _has(folder, tables) else sorted(folder.glob("*/"))
    sources = [place for place in places if _has(place, tables)]
    if not sources:
        raise ReleaseError(f"{folder}: neither {QUESTIONS} nor {METADATA} here or in a subfolder")
    clips = own_clips(folder, report, (CAPTIONS, *tables))
    for source in sources:
        found = {own.clip.file: own for own in clips if own.clip.source == folder_name(source)}
        asked = _own_questions if (source / QUESTIONS).is_file() else _label_questions
        for own, columns in asked(source, found, report, seed):
            yield from qa_row(report, plain_name(own.clip.source), **own.columns, **columns)


def _has(folder: Path, tables: tuple[str, ...]) -> bool:
    return any((folder / table).is_file() for table in tables)


def _own_questions(
    folder: Path, clips: dict[str, OwnClip], report: Report, seed: int
) -> Iterator[tuple[OwnClip, dict]]:
    names = AudioNames(folder)
    table = folder / QUESTIONS
    rows = read_rows(
        table, ("file", "question", "answer"), (), lambda text: normal_name(text) in names.paths
    )
    for number, row in enumerate(rows):
        values = row.values
        file, task = normal_name(values["file"]), (values.get("task") or TASKS[0]).strip()
        if row.problem is not None or file not in clips:
            reason = row.problem or f"{values['file']!r} cannot be used"
            report.drop(reason, f"{table}, line {row.line}")
            continue
        if task not in TASKS:
            raise ReleaseError(
                f"{table}, line {row.line}: task {task!r} is none of {', '.join(TASKS)}"
            )
        choices = (values.get("choices") or "").split(";")
        yield (
            clips[file],
            {
                "question": values["question"],
                "answer": values["answer"],
                "choices": [choice for choice in choices if choice.strip()],
                "task": task,
                "description": values.get("description") or "",
                "item": f"{plain_name(folder_name(folder))}-{number}",
            },
        )


def _label_questions(
    folder: Path, clips: dict[str, OwnClip], report: Report, seed: int
) -> Iterator[tuple[OwnClip, dict]]:
    labelled = {file: own for file, own in clips.items() if own.clip.facts}
    facts = [own.clip.facts for own in labelled.values()]
    values = {
        name: sorted({row[name] for row in facts if name in row}) for name in CHOICE_QUESTIONS
    }
    for file, own in labelled.items():
        row = own.clip.facts
        for name, question in CHOICE_QUESTIONS.items():
            if name in row and len(values[name]) > 1:
                choices = _choices(
                    row[name], values[name], seed, f"{folder_name(folder)}/{file}/{name}"
                )
                yield (
                    own,
                    {
                        "question": question,
                        "answer": row[name],
                        "choices": choices,
                        "task": f"qa_{name}",
                        "item": f"{plain_name(folder_name(folder))}-{file}-{name}",
                    },
                )
        domain, label = row.get("domain", ""), row.get("instrument") or row.get("label")
        if domain in OPEN_QUESTIONS and label:
            shown = ";".join(row.get("labels", [])) or label
            yield (
                own,
                {
                    "question": OPEN_QUESTIONS[domain],
                    "answer": label.replace("_", " "),
                    "task": TASK_OF_DOMAIN[domain],
                    "item": f"{plain_name(folder_name(folder))}-{file}-label",
                    "description": f"The recording is labelled: {shown}.",
                },
            )


def _choices(answer: str, values: list[str], seed: int, name: str) -> list[str]:
    """The answer among up to three other values, in a random order that depends on the seed and the
    clip alone.
    """
    draw = random.Random(stable_hash(seed, name))
    others = [value for value in values if value != answer]
    chosen = [answer, *draw.sample(others, min(MAX_CHOICES - 1, len(others)))]
    draw.shuffle(chosen)
    return chosen
