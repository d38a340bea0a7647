"""Many heads at once are the same heads trained alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from captionstew.evaluation.metrics import accuracy, mean_average_precision
from captionstew.models.probe import (
    Heads,
    Probe,
    ProbeSettings,
    binary_cross_entropy_per_head,
    cross_entropy_per_head,
    train_probe,
)


def toy(count, seed, classes=3, noise=0.1):
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(classes, 8, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    return centres[labels] + noise * torch.randn(count, 8, generator=generator), labels


@pytest.mark.parametrize("rate, seed", [(1e-4, 0), (1e-3, 1), (1e-2, 4)])
def test_a_head_of_the_grid_equals_one_trained_alone(rate, seed):
    x, labels = toy(40, 0, noise=2.0)
    grid = [(r, s) for r in (1e-4, 1e-3, 1e-2) for s in (0, 1, 4)]
    heads = Heads(8, 3, torch.tensor([r for r, _ in grid]), [s for _, s in grid])
    number = grid.index((rate, seed))
    initial = heads.weight()[number]
    alone = initial.clone().requires_grad_()
    optimizer = torch.optim.Adam([alone], lr=rate, eps=1e-12)
    generator = torch.Generator().manual_seed(5)
    for _ in range(30):
        rows = torch.randperm(40, generator=generator)[:16]
        heads.optimizer.zero_grad()
        targets = labels[rows].expand(len(grid), -1)
        cross_entropy_per_head(heads.scores(x[rows].expand(len(grid), -1, -1)), targets).sum().backward()
        heads.optimizer.step()
        optimizer.zero_grad()
        F.cross_entropy(x[rows] @ alone[:-1] + alone[-1], labels[rows]).backward()
        optimizer.step()
    moved = (alone - initial).abs().max()
    assert moved > 5 * rate
    assert (heads.weight()[number] - alone).abs().max() <= 1e-4 * moved


def test_seeds_give_different_heads_and_rates_the_same_start():
    weights = Heads(8, 3, torch.tensor([1e-3, 1e-3, 1e-2]), [0, 1, 0]).weight()
    torch.testing.assert_close(weights[0], weights[2])
    assert not torch.allclose(weights[0], weights[1])


def test_a_separable_toy_is_learned():
    settings = ProbeSettings(max_epochs=60, seeds=(0, 1))
    probe = train_probe(toy(900, 1), toy(900, 2), 3, cross_entropy_per_head, accuracy, settings)
    x, labels = toy(60, 3)
    scores = probe.scores(x)
    assert scores.shape == (2, 60, 3)
    assert [accuracy(one.numpy(), labels.numpy()) for one in scores] == [1.0, 1.0]
    assert probe.valid_metric == [1.0, 1.0]


def test_several_labels_per_clip():
    x, labels = toy(90, 1)
    targets = F.one_hot(labels, 3).float()
    settings = ProbeSettings(max_epochs=60, seeds=(0,))

    def metric(scores, truth):
        return mean_average_precision(scores, truth)[0]

    probe = train_probe((x, targets), (x, targets), 3, binary_cross_entropy_per_head, metric, settings)
    assert probe.valid_metric == [pytest.approx(1.0, abs=1e-12)]


def test_training_is_deterministic_and_survives_a_checkpoint():
    settings = ProbeSettings(max_epochs=5, seeds=(0, 1))
    first, again = (
        train_probe(toy(60, 1, noise=3), toy(30, 2, noise=3), 3, cross_entropy_per_head, accuracy, settings)
        for _ in range(2)
    )
    assert torch.equal(first.weight, again.weight) and first.valid_metric == again.valid_metric
    x, _ = toy(10, 3)
    assert torch.equal(Probe(**first.to_dict()).scores(x), first.scores(x))


def test_validation_chooses_the_rate_and_standardising_forgives_scale():
    train, valid = toy(90, 1), toy(30, 2)
    settings = ProbeSettings(learning_rates=(1e-7, 1e-2), seeds=(0,), max_epochs=30)
    assert train_probe(train, valid, 3, cross_entropy_per_head, accuracy, settings).learning_rate == 1e-2
    plain = train_probe(train, valid, 3, cross_entropy_per_head, accuracy, settings)
    scaled = [(x * torch.logspace(-6, 6, 8), labels) for x, labels in (train, valid)]
    rescaled = train_probe(*scaled, 3, cross_entropy_per_head, accuracy, settings)
    torch.testing.assert_close(rescaled.weight, plain.weight, rtol=1e-2, atol=1e-3)


def test_a_constant_channel_does_no_harm():
    x, labels = toy(60, 1)
    x = torch.cat([x, torch.full((60, 1), 7.0)], dim=1)
    settings = ProbeSettings(max_epochs=5, seeds=(0,))
    probe = train_probe((x, labels), (x, labels), 3, cross_entropy_per_head, accuracy, settings)
    assert torch.isfinite(probe.scores(x)).all() and probe.scale[-1] == 1.0
    assert np.isfinite(probe.valid_metric).all()
