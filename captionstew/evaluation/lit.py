"""What the decode programs of the alignment protocol share: flags, the chosen epoch, batches,
result files.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from captionstew.data.batches.captioned import Batch, read_coverage
from captionstew.data.manifests.index import IndexedCuts
from captionstew.distributed import Rank
from captionstew.evaluation.frames.batches import frame_batches, frame_table
from captionstew.evaluation.weights import SelectedWeights, SelectionFlags, select_weights
from captionstew.flags import flag
from captionstew.models.encoders.base import FrozenEncoder
from captionstew.models.lit import count_parameters
from captionstew.training.log import read_scalars


@dataclass(frozen=True)
class AlignmentFlags(SelectionFlags):
    """Flags of both decode programs."""

    epoch: int = flag(0, "take epoch-<epoch>.pt; 0: the weights that validation prefers")
    use_averaged_model: bool = flag(
        False, "use the running average of the parameters over the chosen steps"
    )
    manifest: Path = flag(Path("data/cuts_test.jsonl"), "clips to evaluate on")
    encoder: str = flag("", "where the audio encoder lies now, if it has moved since training")
    cache: str = flag(
        "frames",
        "keep the encoder's frames on disk, or compute them anew",
        choices=("frames", "none"),
    )
    cache_dir: Path = flag(Path("exp/embeddings"), "where frames are kept")
    system: str = flag("", "name in the report (default: the experiment folder's)")
    max_duration: float = flag(100.0, "seconds of audio per batch; results do not depend on it")
    num_workers: int = flag(2, "data-loading processes")
    device: str = flag("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))
    seed: int = flag(42, "seed of the bootstrap")


def choose_weights(flags: AlignmentFlags, task: str, metric: str) -> SelectedWeights:
    """The weights that the flags name; without --checkpoint, --epoch and --iter those with the best
    validation `metric`.

    Raises:
      CheckpointError: a file is not there, or it is of another task.
      ValueError: the run never validated.
    """
    if flags.checkpoint is None and flags.epoch == 0 and flags.iter == 0:
        epoch, step = best_validated(flags.exp_dir, metric)
        flags = replace(flags, epoch=epoch, iter=step)
    return select_weights(flags, task)


def best_validated(exp_dir: Path, metric: str) -> tuple[int, int]:
    """--epoch and --iter, one of them 0: the first epoch with the highest validation metric of
    those whose checkpoint is there; without any, of a run that counts steps, the step.

    With --valid-interval, an epoch's metric is its last one, the nearest to its checkpoint.
    """
    records = [
        record for record in read_scalars(exp_dir) if record["kind"] == "valid" and metric in record
    ]
    for key, file in (("epoch", "epoch"), ("step", "checkpoint")):
        metrics = {record[key]: record[metric] for record in records}
        there = [x for x in metrics if (exp_dir / f"{file}-{x}.pt").is_file()]
        if there:
            best = max(there, key=metrics.__getitem__)
            return (best, 0) if key == "epoch" else (0, best)
    raise ValueError(
        f"{exp_dir}: no checkpoint with a validation {metric}; name one with --epoch or --iter"
    )


def evaluation_batches(
    flags: AlignmentFlags, encoder: FrozenEncoder, cuts: IndexedCuts, rank: Rank
) -> Iterator[Batch]:
    """All cuts in batches of frames.

    Raises:
      BadAudio: a clip cannot be read; an evaluation never goes on without it.
    """
    table = frame_table(encoder, cuts, flags, rank, strict=True)
    return frame_batches(encoder, cuts, table, flags.max_duration, flags.num_workers)


def result_fields(
    flags: AlignmentFlags,
    selected: SelectedWeights,
    encoder: FrozenEncoder,
    model: nn.Module,
    cuts: IndexedCuts,
) -> dict[str, Any]:
    """The arguments of write_result that do not depend on the task, `settings` to be added to.

    Raises:
      TrainedOn: the encoder or what adapted to it was trained on some of the cuts, and the flags do
          not allow that.
    """
    coverage = read_coverage(flags.manifest.parent).get("coverage", {})
    split = flags.manifest.stem.removeprefix("cuts_")
    return {
        "split": split,
        "system": flags.system or flags.exp_dir.name,
        "encoder": encoder.description,
        "num_clips": len(cuts),
        "trained_clips": selected.count_trained(cuts, flags.allow_trained_clips),
        "checkpoint": str(selected.source),
        "settings": {
            "corpus": corpus_name(flags.manifest),
            "text_model": selected.config["text_name"],
            "weights": selected.choice,
            "windows": "whole clip",
            "max_caption_tokens": selected.config["max_caption_tokens"],
            "num_train": selected.config.get("num_train"),
            "listed_clips": coverage.get(split, {}).get("total", {}).get("listed", len(cuts)),
            "seed": flags.seed,
        },
        **count_parameters(model, encoder),
    }


def corpus_name(manifest: Path) -> str:
    """The name of the manifest's folder."""
    return manifest.resolve().parent.name
