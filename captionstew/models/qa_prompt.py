"""How a question about a clip is put to an instruction-tuned language model.

The sequence is the model's own chat template around

    Audio: <frames of the clip>
    <question>

followed, in training, by the answer and the token that ends a turn. Questions and answers are data:
a text in them that looks like one of the model's control tokens stays text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LETTERS = "ABCD"
LEAD = "Audio: "
PLACEHOLDER = (  # stands for the user's turn; private characters that no template writes itself
    "\ue000\ue001"
)


@dataclass(frozen=True)
class ChatPrompt:
    """The fixed parts of a sequence as token ids: up to the audio, and from the question's end to
    the answer.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    end: int  # the token that ends an answer


def chat_prompt(tokenizer: Any) -> ChatPrompt:
    """The parts of the tokenizer's chat template.

    Raises:
      ValueError: the tokenizer has no chat template or no token that ends a turn, or its template
        loses the user's turn.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template; take an"
            " instruction-tuned model"
        )
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{tokenizer.name_or_path}: the tokenizer has no end-of-sequence token")
    turns = [{"role": "user", "content": PLACEHOLDER}]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    before, found, after = text.partition(PLACEHOLDER)
    if not found:
        raise ValueError(
            f"{tokenizer.name_or_path}: its chat template does not contain the user's turn"
        )
    ids = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after)]
    lead = encode_texts(tokenizer, [LEAD])[0]
    return ChatPrompt((*ids[0], *lead), tuple(ids[1]), tokenizer.eos_token_id)


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of plain texts: control tokens spelt out in a text are not recognised."""
    if not texts:
        return []
    return tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]


def question_text(question: str, choices: Sequence[str]) -> str:
    """What follows the audio: the question, with AIR-Bench's instruction and lettered choices if
    there are any.

    With four choices the wording is the benchmark's; with fewer only the letters that exist are
    named (the benchmark prints `None` for the absent ones).
    """
    if not choices:
        return f"\n{question}"
    letters = LETTERS[: len(choices)]
    named = f"{', '.join(letters[:-1])}{',' if len(letters) > 2 else ''} and {letters[-1]}"
    lines = [
        (
            f"Choose the most suitable answer from options {named} to respond the question in next"
            f" line, you may only choose {' or '.join(letters)}."
        ),
        question,
        *(f"{letter}. {choice}" for letter, choice in zip(letters, choices)),
    ]
    return "\n" + "\n".join(lines)


def target_text(answer: str, choices: Sequence[str]) -> str:
    """What the model has to say: the letter of the right choice, or the answer itself."""
    return LETTERS[list(choices).index(answer)] if choices else answer
