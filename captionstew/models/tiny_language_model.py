"""A language model of about a million weights that answers questions about a text: the stand-in for
a real one.

It is a Qwen2 with its own byte-level tokenizer and ChatML template, trained for a few minutes on
prompts as `captionstew.models.qa_prompt` makes them, with words in the place of the audio: it
learns to repeat them, and to find the letter of the choice that they name. Saved as a folder that
transformers loads. It shows that a pipeline works; its answers are worth nothing.
"""

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captionstew.models.qa_prompt import LEAD, chat_prompt, encode_texts, question_text, target_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel

END, START, PAD = "<|im_end|>", "<|im_start|>", "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content']"
    " }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REPEAT = "What is said?"
HEAD_DIM = 32
MAX_WORDS = 6  # of a sentence that is to be repeated


@dataclass(frozen=True)
class TextQuestion:
    """A question about words that stand for audio."""

    heard: str
    question: str
    choices: list[str]
    answer: str


@dataclass(frozen=True)
class TinySettings:
    """Size of the model and length of its training; the defaults take about three minutes on one
    core.
    """

    hidden_dim: int = 96
    num_layers: int = 2
    vocab_size: int = 600
    num_steps: int = 600
    batch_size: int = 24
    learning_rate: float = 4e-3
    seed: int = 0


def make_tiny_language_model(
    questions: Sequence[TextQuestion], folder: Path, settings: TinySettings
) -> float:
    """Trains tokenizer and model on the questions and on sentences to repeat, and saves both in
    `folder`.

    Returns the loss per token of the last tenth of the steps.

    Raises:
      ValueError: there are no questions.
    """
    if not questions:
        raise ValueError("no questions to train the language model on")
    texts = [f"{q.heard} {question_text(q.question, q.choices)} {q.answer}" for q in questions]
    tokenizer = train_tokenizer(sorted(set(texts)), settings.vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = _new_model(tokenizer, settings)
        loss = _train(model, tokenizer, questions, settings)
    model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return loss


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer with ChatML's control tokens; the same texts give the same
    tokenizer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def _new_model(tokenizer: Any, settings: TinySettings) -> "PreTrainedModel":
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_dim,
        intermediate_size=3 * settings.hidden_dim,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=max(1, settings.hidden_dim // HEAD_DIM),
        num_key_value_heads=1,
        initializer_range=0.05,  # small models start faster with larger weights than the usual 0.02
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config).float()


def _train(
    model: nn.Module, tokenizer: Any, questions: Sequence[TextQuestion], settings: TinySettings
) -> float:
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.num_steps, pct_start=0.1
    )
    model.train()
    last: list[float] = []
    for step, (ids, targets) in zip(
        range(settings.num_steps), _batches(tokenizer, questions, settings)
    ):
        logits = model(input_ids=ids).logits[:, :-1]
        loss = F.cross_entropy(logits.transpose(1, 2), targets[:, 1:], ignore_index=-100)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step >= int(settings.num_steps * 0.9):  # at least the last one
            last.append(float(loss.detach()))
        if step % 100 == 0:
            logging.info("language model, step %d: loss %.3f", step, float(loss.detach()))
    return sum(last) / len(last)


def _batches(
    tokenizer: Any, questions: Sequence[TextQuestion], settings: TinySettings
) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids (B, L), right-padded, and targets (B, L), -100 outside the answers; without end."""
    draw = random.Random(settings.seed)
    prompt = chat_prompt(tokenizer)
    lead = len(encode_texts(tokenizer, [LEAD])[0])
    before = prompt.before[: len(prompt.before) - lead]
    vocabulary = sorted({word for q in questions for word in f"{q.heard} {q.answer}".split()})
    while True:
        chosen = [
            draw.choice(questions) if draw.random() < 0.5 else _sentence(draw, vocabulary)
            for _ in range(settings.batch_size)
        ]
        heard = encode_texts(
            tokenizer, [LEAD + q.heard + question_text(q.question, q.choices) for q in chosen]
        )
        answers = encode_texts(tokenizer, [target_text(q.answer, q.choices) for q in chosen])
        rows = [
            ([*before, *text, *prompt.after], [*answer, prompt.end])
            for text, answer in zip(heard, answers)
        ]
        longest = max(len(text) + len(answer) for text, answer in rows)
        ids, targets = [], []
        for text, answer in rows:
            fill = longest - len(text) - len(answer)
            ids.append([*text, *answer, *[prompt.end] * fill])
            targets.append([-100] * len(text) + answer + [-100] * fill)
        yield torch.tensor(ids), torch.tensor(targets)


def _sentence(draw: random.Random, vocabulary: Sequence[str]) -> TextQuestion:
    words = " ".join(draw.choice(vocabulary) for _ in range(draw.randint(1, MAX_WORDS)))
    return TextQuestion(words, REPEAT, [], words)
