"""A training of a few numbers: one linear layer, clips of random features."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from captionstew.distributed import Rank
from captionstew.models.losses import Losses
from captionstew.training.flags import BatchFlags, InitFlags, TrainingFlags
from captionstew.training.loop import train

EPOCH = 6  # batches


class ToyTask:
    """Squared outputs, summed over clips. Remembers what it saw; a batch's `trick` makes something
    go wrong.
    """

    def __init__(self):
        self.config = {"task": "toy", "coverage": {"any": 1}}
        self.seen, self.dtypes = [], set()

    def losses(self, model, batch, device):
        output = model(batch["features"])
        self.dtypes.add(output.dtype)
        total = output.float().pow(2).sum()
        if batch["trick"] == "nan loss":
            total = total * float("nan")
        if batch["trick"] == "nan gradient":
            total = total + (output.float().sum() * 0).sqrt()
        if batch["trick"] == "huge gradient":
            nothing = output.float().sum() - output.float().sum().detach()
            total = total + nothing * 1e30 * 1e30
        if batch["trick"] == "no memory":
            raise torch.OutOfMemoryError("tried to allocate 9 TB")
        self.seen.append(batch["cut_ids"])
        return Losses(total, {"loss": total}, {"gauge": output.float().mean()})

    def validate(self, model, batches, device):
        return {"metric": float(len(list(batches)))}


class ToySampler:
    """What the loop asks of a sampler."""

    expected_batches = EPOCH

    def __init__(self, **settings):
        self.settings = SimpleNamespace(seed=0, max_duration=60.0, **settings)
        self.cuts = _Cuts()

    def heaviest(self):
        return {"longest clips": [0, 1, 2, 3], "most clips": [0, 1, 2, 3]}


class _Cuts:
    path, durations = "toy", np.ones(10)
    key_hashes = fingerprint_hashes = np.arange(1, 11, dtype=np.uint64)

    def __len__(self):
        return 10


class ToyData:
    """`tricks` {number of the batch in its epoch: trick}, in the first epoch only; `clips` per
    batch.
    """

    def __init__(self, tricks=None, clips=4, epoch=EPOCH, **settings):
        self.tricks, self.clips, self.epoch = tricks or {}, clips, epoch
        self.sampler = ToySampler(**settings)

    def train_batches(self, epoch, position):
        for number in range(position["consumed"] if position else 0, self.epoch):
            yield self._batch(epoch, number, self.tricks.get(number) if epoch == 1 else None)

    def batch_of(self, positions):
        return self._batch(0, 0, None)

    def valid_batches(self):
        return iter([self._batch(0, 1, None)])

    def _batch(self, epoch, number, trick):
        clips = 0 if trick == "empty" else self.clips
        generator = torch.Generator().manual_seed(1000 * epoch + number)
        return {
            "features": torch.randn(clips, 10, 8, generator=generator),
            "feature_lengths": torch.full((clips,), 10),
            "num_samples": torch.full((clips,), 16000),
            "sampling_rate": 16000,
            "cut_ids": [f"clip-{epoch}-{number}-{clip}" for clip in range(clips)],
            "captions": [f"caption {clip}" for clip in range(clips)],
            "failed": [("broken", "no\nsound")] if trick == "empty" else [],
            "position": {"consumed": number + 1},
            "trick": trick,
        }


@dataclasses.dataclass(frozen=True)
class ToyFlags(TrainingFlags, BatchFlags, InitFlags):
    pass


@pytest.fixture
def toy_data():
    return ToyData


@pytest.fixture
def toy_task():
    return ToyTask


@pytest.fixture
def toy_run(tmp_path):
    """toy_run(data, task=..., exp=..., flag=value ...) -> the model after training."""

    def run(data=None, task=None, exp=tmp_path / "exp", **flags):
        exp.mkdir(exist_ok=True)
        values = {
            "log_interval": 1,
            "average_period": 2,
            "num_epochs": 2,
            "tensorboard": False,
            "preflight": False,
        }
        flags = ToyFlags(exp_dir=exp, **(values | flags))
        torch.manual_seed(flags.seed)
        model = nn.Linear(8, 3)
        train(
            model, task or ToyTask(), data or ToyData(), flags, Rank(0, 0, 1, torch.device("cpu"))
        )
        return model

    return run
