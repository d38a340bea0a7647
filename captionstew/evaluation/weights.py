"""Which weights of a training run an evaluation uses: flags, and what result files say of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captionstew.checkpoint import (
    MODEL_ENTRIES,
    CheckpointError,
    StateDict,
    load_checkpoint,
    select_model,
)
from captionstew.data.manifests.index import IndexedCuts
from captionstew.data.manifests.trained_clips import ENTRY, read_trained_clips
from captionstew.evaluation.trained_clips import Count, TrainedClipsFlags, check_trained_clips
from captionstew.flags import flag
from captionstew.hashing import sha256_of_file


@dataclass(frozen=True)
class SelectionFlags(TrainedClipsFlags):
    """Weights as in icefall (--epoch or --iter, --avg, --use-averaged-model), or those of one
    file.
    """

    exp_dir: Path = flag(Path("exp"), "folder of the training run; results go below it")
    checkpoint: Path | None = flag(None, "checkpoint with the weights to use")
    epoch: int = flag(10, "take epoch-<epoch>.pt", only_with=("iter=", "checkpoint="))
    iter: int = flag(
        0, "if positive, take checkpoint-<iter>.pt instead of an epoch", only_with="checkpoint="
    )
    avg: int = flag(
        1,
        "average this many checkpoints, or this many intervals with --use-averaged-model",
        only_with="checkpoint=",
    )
    use_averaged_model: bool = flag(
        True,
        "use the running average of the parameters over the chosen steps",
        only_with="checkpoint=",
    )


@dataclass(frozen=True)
class SelectedWeights:
    """Weights of a whole model and where they come from.

    Attributes:
      config: what the checkpoint says of the model.
      source: the newest file that the weights come from.
      choice: the flags that chose them, in words.
    """

    weights: StateDict
    config: dict[str, Any]
    source: Path
    choice: str

    def describe_encoder(self) -> dict[str, Any]:
        """What a result file says of the audio encoder."""
        return {
            "path": str(self.source),
            "sha256": sha256_of_file(self.source),
            "preset": self.config["preset"],
            "pretraining": self.config["task"],
            "data_size": self.config.get("coverage", {}).get("subset", "all"),
        }

    def count_trained(self, cuts: IndexedCuts, allow: bool) -> Count | None:
        """How many of the cuts the model was trained on, its initial or frozen encoder included.

        Raises:
          TrainedOn: there are some, and they are not allowed.
        """
        memory = read_trained_clips(self.source.parent, self.config.get(ENTRY))
        return check_trained_clips(cuts, memory, allow, self.source)


def select_weights(flags: SelectionFlags, task: str = "") -> SelectedWeights:
    """Reads the weights that the flags name.

    Args:
      task: what the model must have been trained for (default: anything).

    Raises:
      CheckpointError: a file that the choice needs is not there, cannot be used, or is of another
          task.
    """
    if flags.checkpoint is not None:
        content = load_checkpoint(flags.checkpoint, MODEL_ENTRIES)
        weights, source, choice = content["model"], flags.checkpoint, "file"
    else:
        weights, source = select_model(
            flags.exp_dir, flags.epoch, flags.iter, flags.avg, flags.use_averaged_model
        )
        choice = (
            f"epoch {flags.epoch} iter {flags.iter} avg {flags.avg} use-averaged-model"
            f" {flags.use_averaged_model}"
        )
        content = load_checkpoint(source, MODEL_ENTRIES)
    config = content["config"]
    if task and config.get("task") != task:
        raise CheckpointError(
            f"{source}: trained for {config.get('task')}, but this program needs {task}"
        )
    return SelectedWeights(weights, config, source, choice)
