"""The question-answer table: the one form that every QA set is brought into.

It is a caption table (`captionstew.data.tables`) whose captions are the right answers, with these columns more:

    question     what is asked about the clip
    choices      up to four answers to choose from, the right one among them; [] for an open question
    task         one of TASKS: the row of the report that the question belongs to
    item         the question's identity, unique within its table
    dataset      the set that the clip comes from, as the evaluation names it
    description  what a judge is told about the audio; "" where nobody needs it

A clip may have many questions. How a question is worded for a model (letters of the choices, instruction) is not
part of the data: see `captionstew.models.qa_prompt`.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from captionstew.data.captions import normalise_caption
from captionstew.data.corpus_cli import Report

TASKS = ("qa_sound", "qa_music", "qa_emotion", "qa_gender", "qa_age")
MAX_CHOICES = 4  # AIR-Bench's letters A to D
QA_FIELDS = (
    pa.field("question", pa.string()),
    pa.field("choices", pa.list_(pa.string())),
    pa.field("task", pa.string()),
    pa.field("item", pa.string()),
    pa.field("dataset", pa.string()),
    pa.field("description", pa.string()),
)
QUESTION_COLUMNS = ("question", "choices", "task", "item", "dataset", "description")


def qa_row(
    report: Report,
    source: str,
    *,
    question: str,
    answer: str,
    task: str,
    item: str,
    choices: Sequence[str] = (),
    description: str = "",
    dataset: str = "",
    **columns,
) -> Iterator[dict]:
    """One row, or none if question or answer is empty or the choices are unusable; `yield from qa_row(...)`.

    `columns` are those of the caption table: audio_key, audio_path, split, license, and offset, duration if any.
    """
    if task not in TASKS:
        raise ValueError(f"task {task!r} is none of {', '.join(TASKS)}")
    question = normalise_caption(question or "")
    answer = normalise_caption(answer or "")
    choices = [normalise_caption(choice) for choice in choices]
    if not question:
        report.drop("empty question", item)
    elif choices and answer not in choices:
        report.drop("the right answer is not among the choices", f"{item}: {answer!r} of {choices}")
    elif choices and not (2 <= len(choices) <= MAX_CHOICES and len(set(choices)) == len(choices) and all(choices)):
        report.drop(f"not 2 to {MAX_CHOICES} different choices", f"{item}: {choices}")
    else:
        yield from report.row(
            answer,
            source,
            question=question,
            choices=choices,
            task=task,
            item=item,
            dataset=dataset or source,
            description=normalise_caption(description or ""),
            **columns,
        )
