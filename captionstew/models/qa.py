"""Question answering: frames of a frozen encoder, a trained adaptor, a frozen language model.

B questions, T frames of D channels, A audio positions of E channels (the language model's embedding
width), L positions of a whole sequence, R of them for the answer.
"""

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captionstew.data.batches.questions import Encoded, QaItem
from captionstew.models.pooling import frame_mask
from captionstew.models.qa_prompt import (
    ChatPrompt,
    chat_prompt,
    encode_texts,
    question_text,
    target_text,
)

if TYPE_CHECKING:
    # what AutoModelForCausalLM gives
    from transformers.models.auto.modeling_auto import _BaseModelWithGenerate as LanguageModel

IGNORED = -100  # F.cross_entropy leaves such targets out


class AudioAdaptor(nn.Module):
    """Frames -> stacks of `stack` frames, not overlapping -> two linear layers -> the language
    model's embeddings.

    Frames are scaled to mean 0 and deviation 1 per channel by `set_statistics`; the last layer
    starts so that its outputs are as large as the model's own embeddings (`embedding_rms`).
    """

    def __init__(
        self, dim: int, stack: int, hidden_dim: int, output_dim: int, embedding_rms: float
    ) -> None:
        super().__init__()
        self.stack = stack
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))
        self.hidden = nn.Linear(dim * stack, hidden_dim)
        self.output = nn.Linear(hidden_dim, output_dim)
        # Unit inputs leave nn.Linear's default initial weights (variance 1/3 per input sum) and
        # GELU with a mean square of about 0.1, so this makes the outputs' root mean square about
        # `embedding_rms`.
        nn.init.normal_(self.output.weight, std=embedding_rms / (0.1 * hidden_dim) ** 0.5)
        nn.init.zeros_(self.output.bias)

    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """mean (D,), deviation (D,) of the encoder's channels over training frames."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D), (B,) -> (B, A, E), (B,) with A = ceil(T / stack); a clip's last stack is
        filled up with zeros.
        """
        frames = (frames - self.mean) / self.deviation
        frames = frames.masked_fill(~frame_mask(lengths, frames.size(1)).unsqueeze(-1), 0.0)
        frames = F.pad(frames, (0, 0, 0, -frames.size(1) % self.stack))
        stacked = frames.reshape(
            frames.size(0), -1, frames.size(2) * self.stack
        )  # (B, A, stack * D)
        return self.output(F.gelu(self.hidden(stacked))), (lengths + self.stack - 1) // self.stack


class FrozenLanguageModel:
    """A causal language model that is given audio in its embedding space. Nothing of it is trained
    or saved.

    Not an nn.Module on purpose: it must get into no checkpoint, no average and no
    DistributedDataParallel.

    Args:
      model: a transformers causal language model on its device.
      tokenizer: its tokenizer, with a chat template.
      description: what it is, for checkpoints and result files: path, sha256, bits.
      checkpointing: recompute activations in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        model: "LanguageModel",
        tokenizer: Any,
        description: dict[str, Any],
        checkpointing: bool = False,
    ):
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.description = description
        self.prompt: ChatPrompt = chat_prompt(tokenizer)
        self.checkpointing = checkpointing
        self._embed = model.get_input_embeddings()
        self.dim = self._vectors.shape[1]
        if checkpointing:
            _without_dropout(model)
            model.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )

    @property
    def _vectors(self) -> Tensor:
        """(tokens, E)"""
        return self._embed.get_parameter("weight")

    @property
    def device(self) -> torch.device:
        return self._vectors.device

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def fixed_tokens(self) -> int:
        """Positions that every sequence has beside audio, question and answer."""
        return len(self.prompt.before) + len(self.prompt.after) + 1

    def encode(self, items: Sequence[QaItem], max_answer_tokens: int) -> list[Encoded]:
        """Tokens of every question, with its choices, and of what has to be said, cut to
        `max_answer_tokens`.
        """
        questions = encode_texts(
            self.tokenizer, [question_text(item.question, item.choices) for item in items]
        )
        answers = encode_texts(
            self.tokenizer, [target_text(item.answer, item.choices) for item in items]
        )
        return [
            Encoded(array("i", question), array("i", answer[:max_answer_tokens]))
            for question, answer in zip(questions, answers)
        ]

    def embedding_rms(self) -> float:
        """Root mean square of the token embeddings' entries."""
        return float(self._vectors.float().square().mean().sqrt())

    def answer_losses(
        self,
        audio: Tensor,
        audio_lengths: Tensor,
        questions: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        padding_side: str = "left",
    ) -> Tensor:
        """(B, A, E), (B,), B questions, B answers -> (B,) float32: mean cross-entropy of the
        answer's tokens, the end included. No other position carries loss.
        """
        ended = [[*answer, self.prompt.end] for answer in answers]
        embeddings, mask, targets = self._sequences(
            audio, audio_lengths, questions, ended, padding_side
        )
        # With the answers at the right end only the last positions need logits: the vocabulary is
        # what takes memory.
        kept = max(len(answer) for answer in ended) + 1 if padding_side == "left" else 0
        # transformers checkpoints activations in training mode only
        self.model.train(self.checkpointing and torch.is_grad_enabled())
        logits = self.model(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=_positions(mask),
            logits_to_keep=kept,
            use_cache=False,
        ).logits
        targets = targets[:, -logits.size(1) :][
            :, 1:
        ]  # the logits of a position are about the next one
        losses = F.cross_entropy(
            logits[:, :-1].float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
        )
        return losses.sum(1) / (targets != IGNORED).sum(1)

    @torch.no_grad()
    def generate(
        self,
        audio: Tensor,
        audio_lengths: Tensor,
        questions: Sequence[Sequence[int]],
        max_tokens: int,
    ) -> list[str]:
        """(B, A, E), (B,), B questions -> B answers, greedily, each up to the end token or
        `max_tokens` tokens.
        """
        embeddings, mask, _ = self._sequences(
            audio, audio_lengths, questions, [[]] * len(questions), "left"
        )
        end = {self.prompt.end} | _end_tokens(self.model)
        self.model.eval()
        ids = self.model.generate(
            inputs_embeds=embeddings,
            attention_mask=mask,
            max_new_tokens=max_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
            eos_token_id=sorted(end),
            pad_token_id=self.prompt.end,
        )
        return [
            self.tokenizer.decode(_until(row, end), skip_special_tokens=True).strip()
            for row in ids.tolist()
        ]

    def _sequences(
        self,
        audio: Tensor,
        audio_lengths: Tensor,
        questions: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        padding_side: str,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> embeddings (B, L, E), mask (B, L) int64 (1 = not padding), targets (B, L) with IGNORED
        outside answers
        """
        before, after = self.prompt.before, self.prompt.after
        lengths = audio_lengths.tolist()
        rows, heard, targets = [], [], []
        for length, question, answer in zip(lengths, questions, answers):
            text = [*question, *after, *answer]
            rows.append([*before, *[0] * length, *text])
            heard.append([False] * len(before) + [True] * length + [False] * len(text))
            targets.append([IGNORED] * (len(rows[-1]) - len(answer)) + list(answer))
        device = self.device
        mask = _padded([[1] * len(row) for row in rows], 0, padding_side).to(device)
        is_audio = _padded(heard, False, padding_side).to(device)
        embeddings = self._embed(_padded(rows, 0, padding_side).to(device))
        audio = audio.to(device)
        clips = audio[frame_mask(audio_lengths.to(device), audio.size(1))]  # (sum of A, E)
        embeddings = embeddings.masked_scatter(is_audio.unsqueeze(-1), clips.to(embeddings.dtype))
        return embeddings, mask, _padded(targets, IGNORED, padding_side).to(device)


def build_adaptor(config: dict[str, Any], embedding_rms: float) -> AudioAdaptor:
    """The adaptor that a checkpoint's `config` describes, with new weights."""
    return AudioAdaptor(
        config["frame_dim"], config["stack"], config["hidden_dim"], config["llm_dim"], embedding_rms
    )


def frames_per_token(frame_rate: float, token_rate: float) -> int:
    """How many frames are stacked for about `token_rate` audio positions per second."""
    return max(1, round(frame_rate / token_rate))


def _padded(rows: Sequence[Sequence[int]], value: int, side: str) -> Tensor:
    """B rows -> (B, L), filled up with `value` on the left or the right."""
    longest = max(len(row) for row in rows)
    fill = [[value] * (longest - len(row)) for row in rows]
    return torch.tensor(
        [[*pad, *row] if side == "left" else [*row, *pad] for row, pad in zip(rows, fill)]
    )


def _positions(mask: Tensor) -> Tensor:
    """(B, L) -> (B, L): 0 at a sequence's first token, wherever the padding is."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def _until(ids: Sequence[int], end: set[int]) -> list[int]:
    """The tokens before the first of `end`."""
    stop = next((place for place, token in enumerate(ids) if token in end), len(ids))
    return list(ids[:stop])


def _end_tokens(model: "LanguageModel") -> set[int]:
    """What the model's own settings end a generation with."""
    found = model.generation_config.eos_token_id
    return set() if found is None else set(found) if isinstance(found, list) else {found}


def _without_dropout(model: nn.Module) -> None:
    """A frozen model in training mode must not become random."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]  # of tensors and modules
