"""The question-answer table: the one form that every QA set is brought into.

It is a caption table (`captionstew.data.tables.caption_table`) whose captions are the right
answers, with these columns more:

    question     what is asked about the clip
    choices      up to four answers to choose from, one of them right; [] for an open question
    task         one of TASKS: the row of the report that the question belongs to
    item         the question's identity, unique within its table
    dataset      the set that the clip comes from, as the evaluation names it
    description  what a judge is told about the audio; "" where nobody needs it

A clip may have many questions. How a question is worded for a model (letters of the choices,
instruction) is not part of the data: see `captionstew.models.qa_prompt`.
"""

import pyarrow as pa

QA_FIELDS = (
    pa.field("question", pa.string()),
    pa.field("choices", pa.list_(pa.string())),
    pa.field("task", pa.string()),
    pa.field("item", pa.string()),
    pa.field("dataset", pa.string()),
    pa.field("description", pa.string()),
)
QUESTION_COLUMNS = ("question", "choices", "task", "item", "dataset", "description")
