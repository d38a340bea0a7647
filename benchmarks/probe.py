#!/usr/bin/env python3
"""Seconds that 50 probing heads (10 learning rates x 5 seeds) take on cached vectors of 10,000
clips.

    python benchmarks/probe.py
    python benchmarks/probe.py --tasks multi_label --num-clips 2000
    python benchmarks/probe.py --tasks multi_label --plain 3      a plain loop per head beside it

Vectors are synthetic: class centres in noise, such that heads end between chance and perfection and
stop by their patience, as on real data. CPU seconds stand beside wall-clock seconds, for machines
that do other things too. `--plain E` trains all heads for E epochs, and one head in a plain torch
loop (nn.Linear, Adam, the same batches and validation) for as many, in turn: the ratio is that of
the time per head.
"""

import argparse
import time
from dataclasses import replace
from statistics import median

import torch
from sklearn.metrics import average_precision_score
from torch import nn

from captionstew.evaluation.probing.clips import VectorClips
from captionstew.evaluation.probing.fit import (
    ProbeSettings,
    binary_cross_entropy_per_head,
    cross_entropy_per_head,
    train_probe,
)
from captionstew.evaluation.probing.head_metrics import AccuracyPerHead, AveragePrecisionPerHead
from captionstew.models.heads import LinearHead

RATES = (3e-5, 1e-4, 2e-4, 3e-4, 6e-4, 1e-3, 2e-3, 3e-3, 6e-3, 1e-2)
LABELS_PER_CLIP = 3  # of 200, as in FSD50K


def single_label(
    count: int, dim: int, classes: int, generator: torch.Generator, centres: torch.Tensor
) -> VectorClips:
    """One class per clip."""
    labels = torch.randint(classes, (count,), generator=generator)
    return VectorClips(centres[labels] + 2.5 * torch.randn(count, dim, generator=generator), labels)


def multi_label(
    count: int, dim: int, classes: int, generator: torch.Generator, centres: torch.Tensor
) -> VectorClips:
    """LABELS_PER_CLIP classes per clip."""
    labels = torch.rand(count, classes, generator=generator).argsort(1)[:, :LABELS_PER_CLIP]
    targets = torch.zeros(count, classes).scatter_(1, labels, 1.0)
    return VectorClips(
        targets @ centres + 2.5 * torch.randn(count, dim, generator=generator), targets
    )


TASKS = {
    "single_label": (single_label, 50, cross_entropy_per_head, AccuracyPerHead),
    "multi_label": (multi_label, 200, binary_cross_entropy_per_head, AveragePrecisionPerHead),
}


def plain_head(
    train: VectorClips, valid: VectorClips, classes: int, loss: nn.Module, epochs: int
) -> None:
    """One head as anyone would write it; validation by scikit-learn."""
    mean, scale = train.vectors.mean(0), train.vectors.std(0)
    x, x_valid = (train.vectors - mean) / scale, (valid.vectors - mean) / scale
    head = nn.Linear(x.size(1), classes)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(ProbeSettings.batch_size):
            optimizer.zero_grad()
            loss(head(x[rows]), train.targets[rows]).backward()
            optimizer.step()
        with torch.inference_mode():
            scores = head(x_valid)
        if isinstance(loss, nn.CrossEntropyLoss):
            (scores.argmax(1) == valid.targets).float().mean()
        else:
            average_precision_score(valid.targets.numpy(), scores.numpy(), average="macro")


def compare(name: str, train: VectorClips, valid: VectorClips, settings: ProbeSettings) -> None:
    """The median over three turns of plain seconds per head over ours."""
    _, classes, per_head, metric = TASKS[name]
    loss = nn.CrossEntropyLoss() if name == "single_label" else nn.BCEWithLogitsLoss()
    heads = len(settings.learning_rates) * len(settings.seeds)
    ratios = []
    for _ in range(3):
        started = time.perf_counter()
        plain_head(train, valid, classes, loss, settings.max_epochs)
        plain, started = time.perf_counter() - started, time.perf_counter()
        head = LinearHead(train.vectors.size(1), classes)
        train_probe(head, train, valid, per_head, metric, settings)
        ratios.append(plain / ((time.perf_counter() - started) / heads))
    print(
        f"{name}: {settings.max_epochs} epochs; a plain loop takes {median(ratios):.2f} times as"
        f" long per head ({', '.join(f'{ratio:.2f}' for ratio in ratios)})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--num-clips", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=ProbeSettings.batch_size)
    parser.add_argument("--patience", type=int, default=ProbeSettings.patience)
    parser.add_argument("--valid-every", type=int, default=ProbeSettings.valid_every)
    parser.add_argument("--plain", type=int, default=0, help="epochs of the comparison")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = ProbeSettings(
        learning_rates=RATES,
        batch_size=args.batch_size,
        patience=args.patience,
        valid_every=args.valid_every,
    )
    for name in args.tasks:
        make, classes, loss, metric = TASKS[name]
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(classes, args.dim, generator=generator) / 4
        train, valid = (
            make(n, args.dim, classes, generator, centres)
            for n in (args.num_clips, args.num_clips // 10)
        )
        if args.plain:
            compare(name, train, valid, replace(settings, max_epochs=args.plain))
            continue
        started, cpu = time.perf_counter(), time.process_time()
        probe = train_probe(LinearHead(args.dim, classes), train, valid, loss, metric, settings)
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
        print(
            f"{name}: {len(RATES) * len(settings.seeds)} heads, {classes} classes, D {args.dim},"
            f" {args.num_clips} clips: {wall:.0f} s, {cpu:.0f} CPU s; rate {probe.learning_rate:g},"
            f" validation {sum(probe.valid_metric) / len(probe.valid_metric):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
