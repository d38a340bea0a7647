"""Questions from the labels of a folder of recordings, or from its own questions.csv.

    questions.csv   file,question,answer[,choices,task,description]      choices separated by ";"
    metadata.csv    file,domain,label,emotion,gender,age,instrument,...  where there is no questions.csv

`domain` is sound_event, music or speech. Emotion, gender and age become multiple choice among the
values that the folder has (up to four), a sound's label and an instrument become open questions.
The folder may be a folder of such folders. Clips are split by the column `split`, else by `fold`
(4: validation, 5: test), else by a hash of their speaker or name, as captionstew.corpora.own.split
does.
"""

import random
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from captionstew.corpora.own.folder_table import plain_name
from captionstew.corpora.own.split import HELD_OUT_PERCENT
from captionstew.corpora.questions import MAX_CHOICES, TASKS, qa_row
from captionstew.corpora.release import ReleaseError, Report, read_csv
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
FOLDS = {"4": "valid", "5": "test"}


def folder_questions(folder: Path, report: Report, seed: int) -> Iterator[dict]:
    """Rows of the question-answer table; raises ReleaseError for a folder without either table."""
    folders = [path for path in (folder, *sorted(folder.glob("*/"))) if _table(path) is not None]
    if not folders:
        raise ReleaseError(
            f"{folder}: neither questions.csv nor metadata.csv here or in a subfolder"
        )
    for source in folders:
        facts = _facts(source)
        read = _own_questions if (source / "questions.csv").is_file() else _label_questions
        for columns in read(source, facts, report, seed):
            file = columns.pop("file")
            prefix = "" if source == folder else f"{source.name}/"
            yield from qa_row(
                report,
                plain_name(source.name),
                audio_key=f"{plain_name(folder.name).lower()}:{prefix}{file}",
                audio_path=str((source / file).absolute()),
                split=_split(file, facts.get(file, {})),
                license=facts.get(file, {}).get("licence") or "unknown",
                **columns,
            )


def _table(folder: Path) -> Path | None:
    return next(
        (folder / name for name in ("questions.csv", "metadata.csv") if (folder / name).is_file()),
        None,
    )


def _facts(folder: Path) -> dict[str, dict[str, str]]:
    """file -> its row of metadata.csv without empty fields; {} without that table."""
    path = folder / "metadata.csv"
    rows = read_csv(path, ("file",)) if path.is_file() else ()
    return {
        row["file"].strip(): {
            name: value.strip() for name, value in row.items() if isinstance(value, str) and value
        }
        for row in rows
    }


def _split(file: str, facts: dict[str, str]) -> str:
    if facts.get("split"):
        return facts["split"]
    if facts.get("fold"):
        return FOLDS.get(facts["fold"], "train")
    percent = stable_hash("split", facts.get("speaker") or file) % 100
    return (
        "test"
        if percent < HELD_OUT_PERCENT
        else "valid"
        if percent < 2 * HELD_OUT_PERCENT
        else "train"
    )


def _inside(file: str, report: Report) -> bool:
    if file and not file.startswith("/") and ".." not in PurePosixPath(file).parts:
        return True
    report.drop("file is not inside the folder", file)
    return False


def _own_questions(folder: Path, facts: dict, report: Report, seed: int) -> Iterator[dict]:
    for number, row in enumerate(
        read_csv(folder / "questions.csv", ("file", "question", "answer"))
    ):
        file, task = row["file"].strip(), (row.get("task") or TASKS[0]).strip()
        if task not in TASKS:
            raise ReleaseError(
                f"{folder / 'questions.csv'}: task {task!r} is none of {', '.join(TASKS)}"
            )
        if _inside(file, report):
            yield {
                "file": file,
                "question": row["question"],
                "answer": row["answer"],
                "choices": [
                    choice for choice in (row.get("choices") or "").split(";") if choice.strip()
                ],
                "task": task,
                "description": row.get("description") or "",
                "item": f"{plain_name(folder.name)}-{number}",
            }


def _label_questions(folder: Path, facts: dict, report: Report, seed: int) -> Iterator[dict]:
    values = {
        name: sorted({row[name] for row in facts.values() if name in row})
        for name in CHOICE_QUESTIONS
    }
    for file, row in facts.items():
        if not _inside(file, report):
            continue
        for name, question in CHOICE_QUESTIONS.items():
            if name in row and len(values[name]) > 1:
                choices = _choices(row[name], values[name], seed, f"{folder.name}/{file}/{name}")
                yield {
                    "file": file, "question": question, "answer": row[name], "choices": choices, "task": f"qa_{name}",
                    "item": f"{plain_name(folder.name)}-{file}-{name}",
                }  # fmt: skip
        domain, label = row.get("domain", ""), row.get("instrument") or row.get("label")
        if domain in OPEN_QUESTIONS and label:
            yield {
                "file": file, "question": OPEN_QUESTIONS[domain], "answer": label.replace("_", " "),
                "task": TASK_OF_DOMAIN[domain], "item": f"{plain_name(folder.name)}-{file}-label",
                "description": f"The recording is labelled: {row.get('labels') or label}.",
            }  # fmt: skip


def _choices(answer: str, values: list[str], seed: int, name: str) -> list[str]:
    """The answer among up to three other values, in a random order that depends on the seed and the
    clip alone.
    """
    draw = random.Random(stable_hash(seed, name))
    others = [value for value in values if value != answer]
    chosen = [answer, *draw.sample(others, min(MAX_CHOICES - 1, len(others)))]
    draw.shuffle(chosen)
    return chosen
