"""Rows of question tables, checked as they are made."""

from collections.abc import Iterator, Sequence

from captionstew.corpora.release import Report
from captionstew.data.captions import normalise_caption

TASKS = ("qa_sound", "qa_music", "qa_emotion", "qa_gender", "qa_age")


MAX_CHOICES = 4  # AIR-Bench's letters A to D


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
    """One row, or none if question or answer is empty or the choices are unusable; `yield from
    qa_row(...)`.

    `columns` are those of the caption table: audio_key, audio_path, split, license, and offset,
    duration if any.
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
    elif choices and not (
        2 <= len(choices) <= MAX_CHOICES and len(set(choices)) == len(choices) and all(choices)
    ):
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
