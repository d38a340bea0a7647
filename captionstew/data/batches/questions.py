"""Questions about clips as batches: B questions, T frames, D channels of the frozen encoder.

A batch is as the training loop wants it, one row per question:

    features (B, T, D) float32, feature_lengths (B,)     the clip's frames, zero-padded
    question_ids, answer_ids [array of int]              tokens of the question and right answer
    items [QaItem]                                       the questions themselves
    cut_ids [str]                                        the questions' names

A clip with many questions is encoded once. Batches are filled by audio and text together: a text
token takes as much of `--max-duration` as a frame that the language model sees, 1/`token_rate`
seconds.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from captionstew.data.audio import SAMPLING_RATE
from captionstew.data.batches.captioned import Batch, batches_from, validation_share
from captionstew.data.batches.flags import BatchFlags
from captionstew.data.batches.loader import make_loader
from captionstew.data.batches.sampling import EpochBatches
from captionstew.data.manifests.index import IndexedCuts
from captionstew.data.manifests.rows import ManifestError
from captionstew.data.tables.question_table import QUESTION_COLUMNS


class QaItem(NamedTuple):
    """One question about the clip `cut_id`, which has `seconds` of audio."""

    item: str
    cut_id: str
    task: str
    dataset: str
    question: str
    choices: list[str]
    answer: str
    description: str
    seconds: float


class Encoded(NamedTuple):
    """Token ids of a question (with its choices) and of what the model has to say.

    Arrays, as lists of the study's 237,000 questions would take a gigabyte in every process.
    """

    question: "array[int]"
    answer: "array[int]"


class FrameSource(Protocol):
    """Frames of clips by cut id; those that could not be read have none."""

    def __contains__(self, cut_id: str, /) -> bool: ...

    def batch(self, cut_ids: Sequence[str], /) -> tuple[Tensor, Tensor]:
        """-> frames (B, T, D) float32, zero-padded, and lengths (B,)"""


def read_items(cuts: IndexedCuts) -> list[QaItem]:
    """All questions of a manifest that make_question_manifests.py wrote, in its order.

    Raises:
      ManifestError: a cut has no questions.
    """
    items = []
    for cut in cuts:
        questions = cut.supervisions[0].custom.get("questions")
        if not questions:
            raise ManifestError(
                f"{cuts.path}: cut {cut.id} has no questions; prepare the data with egs/eval_qa"
            )
        for values in questions:
            columns = {name: values[name] for name in QUESTION_COLUMNS}
            answer = values["answer"]
            items.append(QaItem(cut_id=cut.id, answer=answer, seconds=cut.duration, **columns))
    return items


class QaItems:
    """Questions in the place of a manifest's cuts: what the sampler and the loader ask of one.

    `durations` (N,): seconds of audio plus text, at `token_rate` tokens per second, `fixed_tokens`
    of which every question has around it. `clips`: the cut of each question.
    """

    def __init__(
        self,
        clips: IndexedCuts,
        items: Sequence[QaItem],
        encoded: Sequence[Encoded],
        token_rate: float,
        fixed_tokens: int = 0,
    ) -> None:
        self.path = clips.path
        self.clips = clips
        self.items = list(items)
        self.encoded = list(encoded)
        self._rates = (token_rate, fixed_tokens)
        tokens = np.array(
            [fixed_tokens + len(row.question) + len(row.answer) for row in self.encoded]
        )
        self.durations = np.array([item.seconds for item in self.items]) + tokens / token_rate
        digest = hashlib.sha256(self.durations.tobytes())
        for item in self.items:
            digest.update(f"{item.item}\x1f{item.cut_id}\x1e".encode())
        self.sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.items)

    @property
    def key_hashes(self) -> np.ndarray:
        """Of the clips' audio keys (N,) uint64."""
        return self.clips.key_hashes

    @property
    def fingerprint_hashes(self) -> np.ndarray:
        """Of the clips' audio (N,) uint64."""
        return self.clips.fingerprint_hashes

    def select(self, rows: Sequence[int] | np.ndarray) -> "QaItems":
        """The questions at these positions, in this order."""
        chosen = [int(row) for row in rows]
        items, encoded = [self.items[row] for row in chosen], [self.encoded[row] for row in chosen]
        return QaItems(self.clips.select(chosen), items, encoded, *self._rates)

    def read(self, positions: Sequence[int]) -> list[tuple[QaItem, Encoded]]:
        return [(self.items[position], self.encoded[position]) for position in positions]


class _QaDataset(Dataset):
    """Maps (epoch, questions) to a batch."""

    store = None  # make_loader asks every data set for a feature store
    bytes_per_second = 4 * 50 * 1024  # the largest encoders here: 50 frames of 1024 channels

    def __init__(self, table: FrameSource) -> None:
        self.table = table

    def __getitem__(self, item: tuple[int, list[tuple[QaItem, Encoded]]]) -> Batch:
        epoch, rows = item
        items = [row for row, _ in rows]
        frames, lengths = self.table.batch([row.cut_id for row in items])
        return {
            "epoch": epoch,
            "cut_ids": [row.item for row in items],
            "failed": [],
            "items": items,
            "question_ids": [encoded.question for _, encoded in rows],
            "answer_ids": [encoded.answer for _, encoded in rows],
            "features": frames,
            "feature_lengths": lengths,
            "num_samples": torch.tensor(
                [round(row.seconds * SAMPLING_RATE) for row in items], dtype=torch.int64
            ),
            "sampling_rate": SAMPLING_RATE,
        }


def qa_items(
    cuts: IndexedCuts,
    table: FrameSource,
    encode: Callable[[Sequence[QaItem]], list[Encoded]],
    token_rate: float,
    fixed_tokens: int = 0,
) -> QaItems:
    """The questions of a manifest whose clips have frames in `table`; says how many have none."""
    found = read_items(cuts)
    items = [item for item in found if item.cut_id in table]
    if len(items) < len(found):
        print(
            f"{cuts.path}: {len(found) - len(items)} of {len(found)} questions are about clips that"
            " cannot be read"
        )
    rows = {cut_id: row for row, cut_id in enumerate(dict.fromkeys(item.cut_id for item in found))}
    clips = cuts.select([rows[item.cut_id] for item in items])
    return QaItems(clips, items, encode(items), token_rate, fixed_tokens)


def questions_by_source(items: Sequence[QaItem]) -> dict[str, int]:
    """Number of questions of each data set; those about speakers (`speakerqa_<corpus>`) are one."""
    names = ("speakerqa" if x.dataset.startswith("speakerqa_") else x.dataset for x in items)
    return dict(Counter(names))


def qa_batches(
    questions: QaItems, table: FrameSource, max_duration: float, num_workers: int
) -> Iterator[Batch]:
    """Every question once, in an order that depends on the questions alone."""
    if len(questions) == 0:
        return iter(())
    return iter(
        make_loader(
            EpochBatches(questions, max_duration, shuffle=False), _QaDataset(table), num_workers
        )
    )


class QaBatches:
    """Training and validation batches of one rank, for the training loop."""

    def __init__(
        self,
        train: QaItems,
        train_table: FrameSource,
        valid: QaItems,
        valid_table: FrameSource,
        flags: BatchFlags,
        rank: int,
        world_size: int,
    ) -> None:
        self._flags = flags
        self.sampler = EpochBatches(
            train,
            flags.max_duration,
            num_buckets=flags.num_buckets,
            seed=flags.seed,
            rank=rank,
            world_size=world_size,
        )
        self._dataset = _QaDataset(train_table)
        self._loader = make_loader(self.sampler, self._dataset, flags.num_workers)
        self._valid = validation_share(valid, flags.valid_clips, rank, world_size)
        self._valid_table = valid_table

    def train_batches(self, epoch: int, position: dict[str, Any] | None) -> Iterator[Batch]:
        """The batches of an epoch, from its start or from after `position`."""
        return batches_from(self.sampler, self._loader, epoch, position)

    def batch_of(self, positions: Sequence[int]) -> Batch:
        """The training batch of the questions at these positions, made in this process."""
        return self._dataset[1, self.sampler.cuts.read(positions)]

    def valid_batches(self) -> Iterator[Batch]:
        """This rank's share of at most --valid-clips validation questions, the same ones every
        time.
        """
        return qa_batches(
            self._valid, self._valid_table, self._flags.max_duration, self._flags.num_workers
        )
