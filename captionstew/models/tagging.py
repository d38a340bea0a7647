"""Supervised tagging: the encoder with a linear head per frame, averaged over the clip.

The module is zipformer.AudioTagger, whose keys are those of icefall's AudioSet recipe, so either
side reads the other's weights. B clips, C classes.
"""

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from captionstew.checkpoint import (
    MODEL_ENTRIES,
    CheckpointError,
    StateDict,
    load_checkpoint,
    load_weights,
)
from zipformer import AudioTagger, ZipformerConfig
from zipformer.checkpoint import encoder_state, infer_config, read_checkpoint

HEAD = "classifier.1."


def tagging_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, C), (B, C) in [0, 1] -> binary cross entropy in nats, summed over classes and clips, as
    in icefall
    """
    return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum")


def build_tagger(config: dict[str, Any]) -> AudioTagger:
    """The tagger that a checkpoint's `config` describes, with new weights."""
    return AudioTagger(ZipformerConfig.from_dict(config["encoder"]), len(config["classes"]))


def load_tagger(config: dict[str, Any], weights: StateDict, source: Path) -> AudioTagger:
    """The trained tagger in evaluation mode, every clip's logits independent of its batch.

    Raises:
      CheckpointError: the weights do not fit the configuration.
    """
    encoder = ZipformerConfig.from_dict(config["encoder"]).replace(batch_invariant=True)
    model = build_tagger(config | {"encoder": encoder.to_dict()})
    load_weights(model, weights, source)
    return model.eval()


def read_tagger(path: Path, classes: list[str] | None) -> tuple[dict[str, Any], StateDict]:
    """Configuration and weights of a tagging checkpoint: ours, or icefall's, which does not name
    its classes.

    Raises:
      CheckpointError: not a tagger, or `classes` are missing or not as many as its outputs.
    """
    weights, stored = read_checkpoint(path)
    if stored is not None:
        content = load_checkpoint(path, MODEL_ENTRIES)
        require_tagger(content["config"], path)
        return content["config"], content["model"]
    weights = {key.removeprefix("module."): value for key, value in weights.items()}
    if f"{HEAD}weight" not in weights:
        raise CheckpointError(f"{path}: no tagging head ({HEAD}weight) in it")
    outputs = len(weights[f"{HEAD}weight"])
    if classes is None or len(classes) != outputs:
        found = (
            "no class list was given" if classes is None else f"the class list has {len(classes)}"
        )
        raise CheckpointError(
            f"{path}: a tagger of {outputs} classes that it does not name, {found}: use"
            " --class-list"
        )
    config = infer_config(encoder_state(weights, path), path)
    return {
        "task": "tagging",
        "preset": "from checkpoint",
        "encoder": config.to_dict(),
        "fbank": {},
        "classes": classes,
        "label_field": "labels",
    }, weights


def require_tagger(config: dict[str, Any], source: Path) -> None:
    """Raises CheckpointError for the checkpoint of another objective."""
    if config.get("task") != "tagging":
        raise CheckpointError(f"{source}: a checkpoint of {config.get('task')!r}, not of tagging")
