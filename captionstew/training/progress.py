"""What a run says about itself every so many steps."""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping

from captionstew.distributed import gather_objects
from captionstew.training.state import TrainerState, Window


def report_progress(trainer: TrainerState) -> None:
    """One line and one record for the steps since the last one, over all ranks. Losses are means
    over clips.
    """
    window, trainer.window = trainer.window, Window()
    elapsed = max(time.monotonic() - window.started, 1e-9)
    everyone = gather_objects((window.sums, window.terms))
    sums = _totals(sums for sums, _ in everyone)
    terms = _totals(terms for _, terms in everyone)
    names = sorted(terms, key=lambda name: (name != "loss", name))
    clips = max(sums["clips"], 1)
    values = {name: terms[name] / clips for name in names}
    values |= {
        "learning_rate": trainer.scheduler.last_lr()[0],
        "gradient_norm": window.gradient_norm / window.steps,
        "clipped_share": window.clipped / window.steps,
        "batch_seconds": sums["audio_seconds"] / window.steps,
        "padding_share": 1.0 - sums["valid_frames"] / max(sums["all_frames"], 1),
        "audio_seconds_per_second": sums["audio_seconds"] / elapsed,
        "data_wait_share": sums["waited_seconds"] / (elapsed * trainer.rank.world_size),
        "failed_clips": int(sums["failed"]),
    }
    if trainer.flags.use_fp16:
        values |= {"grad_scale": trainer.scaler.get_scale(), "skipped_steps": window.skipped}
    trainer.log.write("train", trainer.step, trainer.epoch, values)
    logging.info(
        "epoch %d, step %d, %s, lr %.2e, %.0f s/s, %s left", trainer.epoch, trainer.step,
        ", ".join(f"{name} {values[name]:.4g}" for name in names), values["learning_rate"],
        values["audio_seconds_per_second"], as_time(steps_left(trainer) * elapsed / window.steps),
    )  # fmt: skip


def _totals(counts: Iterable[Mapping[str, float]]) -> defaultdict[str, float]:
    total: defaultdict[str, float] = defaultdict(float)
    for of_rank in counts:
        for name, count in of_rank.items():
            total[name] += count
    return total


def steps_left(trainer: TrainerState) -> int:
    """About how many steps are to come: up to --max-steps or to the end of --num-epochs, whatever
    is sooner.
    """
    flags = trainer.flags
    batches_per_epoch = trainer.data.sampler.expected_batches
    per_epoch = math.ceil(batches_per_epoch / flags.accum_grad)
    consumed = trainer.position["consumed"] / flags.accum_grad if trainer.position else 0
    by_epochs = (flags.num_epochs + 1 - trainer.epoch) * per_epoch - consumed
    left = min(by_epochs, flags.max_steps - trainer.step) if flags.max_steps else by_epochs
    return max(0, round(left))


def as_time(seconds: float) -> str:
    """45 s, 12 min, 3 h 20 min, 2 d 5 h."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
