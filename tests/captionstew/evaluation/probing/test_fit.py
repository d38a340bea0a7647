"""Many heads at once are the same heads trained alone."""

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from captionstew.evaluation.metrics.classification import accuracy
from captionstew.evaluation.probing.clips import FrameClips, VectorClips
from captionstew.evaluation.probing.fit import (
    Heads,
    Probe,
    ProbeSettings,
    binary_cross_entropy_per_head,
    cross_entropy_per_head,
    train_probe,
)
from captionstew.evaluation.probing.head_metrics import AccuracyPerHead, AveragePrecisionPerHead
from captionstew.evaluation.probing.progress import Progress
from captionstew.models.heads import LinearHead


def toy(count, seed, classes=3, noise=0.1):
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(classes, 8, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    return centres[labels] + noise * torch.randn(count, 8, generator=generator), labels


def single_label(train, valid, settings):
    head = LinearHead(train[0].size(1), 3)
    return train_probe(
        head,
        VectorClips(*train),
        VectorClips(*valid),
        cross_entropy_per_head,
        AccuracyPerHead,
        settings,
    )


@pytest.mark.parametrize("rate, seed", [(1e-4, 0), (1e-3, 1), (1e-2, 4)])
def test_a_head_of_the_grid_equals_one_trained_alone(rate, seed):
    x, labels = toy(40, 0, noise=2.0)
    grid = [(r, s) for r in (1e-4, 1e-3, 1e-2) for s in (0, 1, 4)]
    heads = Heads(LinearHead(8, 3), [r for r, _ in grid], [s for _, s in grid])
    number = grid.index((rate, seed))

    def weight():
        values = heads.weights()
        return torch.cat(
            [values["linear_weight"][number].T, values["linear_bias"][number][None]]
        ).detach()

    initial = weight()
    alone = initial.clone().requires_grad_()
    optimizer = torch.optim.Adam([alone], lr=rate, eps=1e-12)
    generator = torch.Generator().manual_seed(5)
    for _ in range(30):
        rows = torch.randperm(40, generator=generator)[:16]
        heads.optimizer.zero_grad()
        cross_entropy_per_head(heads.scores(x[rows]), labels[rows]).sum().backward()
        heads.optimizer.step()
        optimizer.zero_grad()
        F.cross_entropy(x[rows] @ alone[:-1] + alone[-1], labels[rows]).backward()
        optimizer.step()
    moved = (alone - initial).abs().max()
    assert moved > 5 * rate
    assert (weight() - alone).abs().max() <= 1e-4 * moved


def test_seeds_give_different_heads_and_rates_the_same_start():
    weights = Heads(LinearHead(8, 3), [1e-3, 1e-3, 1e-2], [0, 1, 0]).weights()["linear_weight"]
    torch.testing.assert_close(weights[0], weights[2])
    assert not torch.allclose(weights[0], weights[1])


def test_a_separable_toy_is_learned():
    settings = ProbeSettings(max_epochs=60, seeds=(0, 1))
    probe = single_label(toy(900, 1), toy(900, 2), settings)
    x, labels = toy(60, 3)
    scores = probe.scores(x)
    assert scores.shape == (2, 60, 3)
    assert [accuracy(one.numpy(), labels.numpy()) for one in scores] == [1.0, 1.0]
    assert probe.valid_metric == [1.0, 1.0]


def test_several_labels_per_clip():
    x, labels = toy(90, 1)
    targets = F.one_hot(labels, 3).float()
    settings = ProbeSettings(max_epochs=60, seeds=(0,))

    clips = VectorClips(x, targets)
    head = LinearHead(8, 3)
    probe = train_probe(
        head, clips, clips, binary_cross_entropy_per_head, AveragePrecisionPerHead, settings
    )
    assert probe.valid_metric == [pytest.approx(1.0, abs=1e-12)]


def test_training_is_deterministic_and_survives_a_checkpoint():
    settings = ProbeSettings(max_epochs=5, seeds=(0, 1))
    first, again = (
        single_label(toy(60, 1, noise=3), toy(30, 2, noise=3), settings) for _ in range(2)
    )
    assert (
        torch.equal(first.weights["linear_weight"], again.weights["linear_weight"])
        and first.valid_metric == again.valid_metric
    )
    x, _ = toy(10, 3)
    assert torch.equal(Probe.from_dict(first.to_dict()).scores(x), first.scores(x))


def test_validation_chooses_the_rate_and_standardising_forgives_scale():
    train, valid = toy(90, 1), toy(30, 2)
    settings = ProbeSettings(learning_rates=(1e-7, 1e-2), seeds=(0,), max_epochs=30)
    assert single_label(train, valid, settings).learning_rate == 1e-2
    plain = single_label(train, valid, settings)
    scaled = [(x * torch.logspace(-6, 6, 8), labels) for x, labels in (train, valid)]
    rescaled = single_label(*scaled, settings)
    torch.testing.assert_close(
        rescaled.weights["linear_weight"], plain.weights["linear_weight"], rtol=1e-2, atol=1e-3
    )


def test_a_constant_channel_does_no_harm():
    x, labels = toy(60, 1)
    x = torch.cat([x, torch.full((60, 1), 7.0)], dim=1)
    settings = ProbeSettings(max_epochs=5, seeds=(0,))
    probe = single_label((x, labels), (x, labels), settings)
    assert torch.isfinite(probe.scores(x)).all() and probe.scale[-1] == 1.0
    assert np.isfinite(probe.valid_metric).all()


class Killed(Exception):
    pass


class Dying(Progress):
    """Writes whenever it may, and dies after some writes."""

    def __init__(self, path, writes):
        super().__init__(path, "same", seconds=0.0)
        self.writes = writes

    def save(self, state):
        super().save(state)
        self.writes -= 1
        if self.writes == 0:
            raise Killed


@pytest.mark.parametrize("writes", [1, 7, 23])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_killed_training_ends_as_one_that_was_not(tmp_path, writes, in_memory):
    settings = ProbeSettings(max_epochs=12, seeds=(0, 1), patience=3)
    train, valid = (VectorClips(*toy(60, seed, noise=3)) for seed in (1, 2))
    train.in_memory = in_memory

    def run(progress):
        return train_probe(
            LinearHead(8, 3), train, valid, cross_entropy_per_head, AccuracyPerHead, settings,
            progress=progress,
        )  # fmt: skip

    epochs = []
    batches = train.batches
    train.batches = lambda parts: epochs.append(1) or batches(parts)
    whole = run(None)
    path, unbroken = tmp_path / "probe.progress", len(epochs)
    try:
        run(Dying(path, writes))
    except Killed:
        killed = True
    else:
        killed = False
    assert killed or writes == 23  # patience may have ended it
    epochs.clear()
    resumed = run(Dying(path, -1))
    assert len(epochs) < unbroken  # it did not begin anew
    assert resumed.valid_metric == whole.valid_metric and resumed.valid_loss == whole.valid_loss
    assert torch.equal(resumed.weights["linear_weight"], whole.weights["linear_weight"])


def test_progress_of_other_flags_is_not_gone_on_with(tmp_path, caplog):
    Progress(tmp_path / "x.progress", "one").save({"a": 1})
    assert Progress(tmp_path / "x.progress", "one").load() == {"a": 1}
    assert Progress(tmp_path / "x.progress", "other").load() is None
    assert "of other flags" in caplog.text


def test_a_step_limit_ends_in_the_middle_of_an_epoch():
    seen = []

    class Counted(VectorClips):
        def batches(self, parts):
            seen.append(len(parts))
            return super().batches(parts)

    train = Counted(*toy(60, 1))
    settings = ProbeSettings(max_epochs=50, seeds=(0,), batch_size=20, max_steps=7)
    train_probe(
        LinearHead(8, 3), train, VectorClips(*toy(30, 2)), cross_entropy_per_head,
        AccuracyPerHead, settings,
    )  # fmt: skip
    assert seen == [3, 3, 1]


def test_frames_that_are_read_ahead_are_the_same():
    processes = set()

    def source(cut_ids):
        processes.add(os.getpid())  # of this process; a loading process has its own copy
        lengths = torch.tensor([2 + int(name) % 3 for name in cut_ids])
        frames = torch.stack([torch.full((4, 2), float(name)) for name in cut_ids])
        return frames, lengths

    names, targets = [str(number) for number in range(20)], torch.arange(20)
    here, ahead = (FrameClips(source, names, targets, workers) for workers in (0, 2))
    list(ahead.batches(torch.arange(20).split(8)))
    assert not processes  # none of it was read here
    for parts in (torch.randperm(20).split(6), torch.arange(20).split(8)):  # processes live on
        for one, other in zip(here.batches(parts), ahead.batches(parts), strict=True):
            (frames, lengths), labels = one
            assert torch.equal(frames, other[0][0]) and torch.equal(lengths, other[0][1])
            assert torch.equal(labels, other[1])
