"""What a run says about itself every so many steps."""

import logging
import math
import time
from collections import Counter

from captionstew.distributed import Rank, gather_objects
from captionstew.training.flags import TrainingFlags
from captionstew.training.log import ScalarLog
from captionstew.training.state import Run
from captionstew.training.window import Window


def report_progress(
    run: Run, steps_left: int, flags: TrainingFlags, rank: Rank, log: ScalarLog
) -> None:
    """One line and one record for the steps since the last one, over all ranks. Losses are means
    over clips.
    """
    window, run.window = run.window, Window()
    elapsed = max(time.monotonic() - window.started, 1e-9)
    everyone = gather_objects((window.sums, window.terms))
    sums = sum((sums for sums, _ in everyone), Counter())
    names = sorted(
        set().union(*(terms for _, terms in everyone)), key=lambda name: (name != "loss", name)
    )
    clips = max(sums["clips"], 1)
    values = {name: sum(terms[name] for _, terms in everyone) / clips for name in names}
    values |= {
        "learning_rate": run.scheduler.last_lr()[0],
        "gradient_norm": window.gradient_norm / window.steps,
        "clipped_share": window.clipped / window.steps,
        "batch_seconds": sums["audio_seconds"] / window.steps,
        "padding_share": 1.0 - sums["valid_frames"] / max(sums["all_frames"], 1),
        "audio_seconds_per_second": sums["audio_seconds"] / elapsed,
        "data_wait_share": sums["waited_seconds"] / (elapsed * rank.world_size),
        "failed_clips": sums["failed"],
    }
    if flags.use_fp16:
        values |= {"grad_scale": run.scaler.get_scale(), "skipped_steps": window.skipped}
    log.write("train", run.step, run.epoch, values)
    logging.info(
        "epoch %d, step %d, %s, lr %.2e, %.0f s/s, %s left", run.epoch, run.step,
        ", ".join(f"{name} {values[name]:.4g}" for name in names), values["learning_rate"],
        values["audio_seconds_per_second"], as_time(steps_left * elapsed / window.steps),
    )  # fmt: skip


def steps_left(run: Run, batches_per_epoch: int, flags: TrainingFlags) -> int:
    """About how many steps are to come: up to --max-steps or to the end of --num-epochs, whatever
    is sooner.
    """
    per_epoch = math.ceil(batches_per_epoch / flags.accum_grad)
    consumed = run.position["consumed"] / flags.accum_grad if run.position else 0
    by_epochs = (flags.num_epochs + 1 - run.epoch) * per_epoch - consumed
    left = min(by_epochs, flags.max_steps - run.step) if flags.max_steps else by_epochs
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
