"""The heaviest batches, tried before training starts: memory runs out now or not at all.

Forward and backward of batches as heavy as training can meet, the longest captions on them. Neither
the model nor any random number is different afterwards, so a training with this trial and one
without it are the same.
"""

import logging
import math
import resource
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from captionstew import checkpoint as checkpoints
from captionstew.data.batches.dataset import Batch
from captionstew.data.batches.sampling import Clips
from captionstew.data.manifests.index import IndexedCuts
from captionstew.distributed import Rank
from captionstew.training.nonfinite import TrainingStopped
from captionstew.training.precision import autocast
from captionstew.training.state import TrainerState
from captionstew.training.task import HasTokenizer
from zipformer import load_training_state, training_state

SAMPLED_CLIPS = 1000  # clips among which the longest captions are looked for
MARGIN = 0.95  # of what has been seen to fit
GIGABYTE = 1e9


def report_data(trainer: TrainerState) -> None:
    """Says what there is to train on, and how many captions are too long."""
    cuts, most = trainer.data.sampler.cuts, trainer.flags.max_caption_tokens
    logging.info(
        "training on %d clips, %.2f h, of %s", len(cuts), cuts.durations.sum() / 3600, cuts.path
    )
    captions = _sample_captions(cuts)
    if captions and isinstance(trainer.task, HasTokenizer):
        lengths = trainer.task.tokenizer.encode(captions, max_tokens=10 * most)[1]
        too_long = int((lengths > most).sum())
        logging.info(
            "captions: %d of %d sampled ones are longer than --max-caption-tokens %d and get cut;"
            " the longest has %d",
            too_long, len(captions), most, int(lengths.max()),
        )  # fmt: skip


def run_preflight(trainer: TrainerState) -> None:
    """Tries the heaviest batches and reports their peak memory.

    Raises:
      TrainingStopped: a batch does not fit into memory; the message names the --max-duration to
          try.
    """
    captions = _sample_captions(trainer.data.sampler.cuts)
    random_state, encoder_state = checkpoints.random_state(), training_state(trainer.model)
    trainer.update_schedules()
    reserve = _memory_of_later_state(trainer)
    for name, positions in trainer.data.sampler.heaviest().items():
        batch = trainer.data.batch_of(positions)
        if not batch["cut_ids"]:
            logging.warning("preflight: none of the %s can be read", name)
            continue
        if captions:
            batch["captions"] = _longest(captions, len(batch["cut_ids"]))
        started = time.monotonic()
        if not _fits(trainer, batch):
            raise TrainingStopped(_advice(trainer, batch))
        logging.info(
            "preflight: %s, %s: %.1f s, peak memory %s",
            name,
            _describe(batch),
            time.monotonic() - started,
            _peak(trainer.rank),
        )
    del reserve
    load_training_state(trainer.model, encoder_state)
    checkpoints.set_random_state(random_state)


def _sample_captions(cuts: Clips) -> list[str]:
    """Captions of some clips; none where the rows of `cuts` are no captioned clips."""
    if not isinstance(cuts, IndexedCuts):
        return []
    count = min(SAMPLED_CLIPS, len(cuts))
    positions = np.sort(np.random.default_rng(0).choice(len(cuts), count, replace=False))
    rows = cuts.read(positions.tolist())
    return [caption for cut in rows for caption in cut.supervisions[0].custom.get("captions", ())]


def _longest(captions: Sequence[str], count: int) -> list[str]:
    """The `count` longest captions, repeated if there are fewer."""
    longest = sorted(captions, key=len, reverse=True)[:count]
    return (longest * math.ceil(count / len(longest)))[:count]


def _fits(trainer: TrainerState, batch: Batch) -> bool:
    """Whether memory suffices for a forward and backward pass."""
    device = trainer.rank.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    total: Tensor | None = None
    try:
        with autocast(trainer.flags, device):
            total = trainer.task.losses(trainer.model, batch, device).total
        total.backward()
    except torch.OutOfMemoryError:
        fits = False
    else:
        fits = True
    del total  # its graph holds the memory of the failed trial
    trainer.model.zero_grad(set_to_none=True)
    if not fits and device.type == "cuda":
        torch.cuda.empty_cache()
    return fits


def _advice(trainer: TrainerState, batch: Batch) -> str:
    """What to try instead of a batch that does not fit."""
    max_duration = trainer.flags.max_duration
    reason = f"--max-duration {max_duration:g} needs more memory than there is ({_describe(batch)})"
    if trainer.rank.world_size > 1:  # others may have had enough memory: no more trials together
        return f"{reason}; try --max-duration {max_duration / 2:.0f}"
    clips = len(batch["cut_ids"])
    fitting = clips // 2
    while fitting and not _fits(trainer, _part(batch, fitting)):
        fitting //= 2
    if not fitting:
        return f"{reason}, not even for one clip; take a smaller --encoder-preset or shorter clips"
    more = fitting + fitting // 2
    if more > fitting and _fits(trainer, _part(batch, more)):
        fitting = more
    return f"{reason}; try --max-duration {int(MARGIN * fitting / clips * max_duration)}"


def _part(batch: Batch, kept: int) -> Batch:
    """The first clips of a batch."""
    clips = len(batch["cut_ids"])
    return {
        name: value[:kept] if isinstance(value, (Tensor, list)) and len(value) == clips else value
        for name, value in batch.items()
    }


def _describe(batch: Batch) -> str:
    clips, frames = batch["features"].shape[:2]
    texts = batch.get("captions")
    return f"{clips} clips of {frames} frames" + (
        f", captions of {max(map(len, texts))} characters" if texts else ""
    )


def _memory_of_later_state(trainer: TrainerState) -> Tensor | None:
    """On a GPU, a stand-in for what the first steps will allocate: optimiser state, and DDP's
    buckets of gradients.
    """
    if trainer.rank.device.type != "cuda":
        return None
    size = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
    copies = (0 if trainer.optimizer.state else 2) + (trainer.rank.world_size > 1)
    return torch.empty(copies * size, dtype=torch.uint8, device=trainer.rank.device)


def _peak(rank: Rank) -> str:
    """Of the GPU, or of this process so far."""
    if rank.device.type == "cuda":
        total = torch.cuda.get_device_properties(rank.device).total_memory
        return (
            f"{torch.cuda.max_memory_allocated(rank.device) / GIGABYTE:.1f} of"
            f" {total / GIGABYTE:.1f} GB"
        )
    return (
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIGABYTE:.1f} GB (whole"
        " process)"
    )
