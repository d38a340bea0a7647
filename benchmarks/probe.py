#!/usr/bin/env python3
"""Seconds that 50 probing heads (10 learning rates x 5 seeds) take on cached vectors of 10,000
clips.

    python benchmarks/probe.py
    python benchmarks/probe.py --tasks multi_label --num-clips 2000

Vectors are synthetic: class centres in noise, such that heads end between chance and perfection and
stop by their patience, as on real data. CPU seconds stand beside wall-clock seconds, for machines
that do other things too.
"""

import argparse
import time

import torch

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
