"""What a process counts between two progress lines."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from captionstew.models.losses import Losses
from zipformer.scaled_adam import StepReport


@dataclass
class Window:
    """What happened on this rank since the last progress line."""

    started: float = field(default_factory=time.monotonic)
    steps: int = 0
    skipped: int = 0  # by float16's gradient scaling
    clipped: int = 0
    gradient_norm: float = 0.0  # sum over steps
    sums: Counter = field(default_factory=Counter)  # over clips, added up over ranks for the report
    terms: Counter = field(default_factory=Counter)  # losses and gauges, likewise

    def count_step(
        self, batches: Sequence[dict[str, Any]], losses: Sequence[Losses], report: StepReport
    ) -> None:
        self.steps += 1
        self.gradient_norm += math.hypot(*report.gradient_norms)
        self.clipped += any(factor < 1.0 for factor in report.clip_factors)
        for batch, costs in zip(batches, losses, strict=True):
            clips = len(batch["cut_ids"])
            self.sums["clips"] += clips
            self.sums["audio_seconds"] += (
                float(batch["num_samples"].sum()) / batch["sampling_rate"]
            )  # after cropping
            self.sums["valid_frames"] += int(batch["feature_lengths"].sum())
            self.sums["all_frames"] += batch["features"].shape[0] * batch["features"].shape[1]
            for name, value in costs.terms.items():
                self.terms[name] += float(value.detach())
            for name, value in costs.gauges.items():
                self.terms[name] += float(value.detach()) * clips

    @contextmanager
    def waiting(self):
        """Time spent here is time that the training waited for data."""
        asked = time.monotonic()
        yield
        self.sums["waited_seconds"] += time.monotonic() - asked

    @contextmanager
    def paused(self):
        """Time spent here (validation, checkpoints) says nothing about the speed of training."""
        asked = time.monotonic()
        yield
        self.started += time.monotonic() - asked
