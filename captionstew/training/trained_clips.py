"""Noting what a model is trained on, before it is (captionstew.data.manifests.trained_clips)."""

import logging
from typing import Any

from captionstew.data.manifests.trained_clips import (
    ENTRY,
    TrainedClips,
    memory_of_encoder,
    read_trained_clips,
)
from captionstew.distributed import Rank
from captionstew.models.encoders.zipformer import stored_settings
from captionstew.training.flags import TrainingFlags
from captionstew.training.task import Task, TrainingData


def remember_clips(task: Task, data: TrainingData, flags: TrainingFlags, rank: Rank) -> None:
    """Writes the training clips, and those that the audio encoder came with, beside the
    checkpoints, and their file's name into the task's config, which every checkpoint holds.

    A run that goes on from a checkpoint adds to what that one names.
    """
    if not rank.is_main:
        return
    memory = TrainedClips.of(data.sampler.cuts)
    num_clips = len(memory.keys)
    if ENTRY in task.config:
        memory = memory.joined(read_trained_clips(flags.exp_dir, task.config[ENTRY]))
    elif (encoder := initial_encoder(task, flags)) is not None:
        memory = memory.joined(memory_of_encoder(encoder))
    task.config[ENTRY] = memory.write(flags.exp_dir)
    logging.info(
        "%s: %d training clips, %d with what was trained on before%s",
        flags.exp_dir / task.config[ENTRY]["file"],
        num_clips,
        len(memory.keys),
        "" if memory.complete else "; not all of that is known",
    )


def initial_encoder(task: Task, flags: TrainingFlags) -> dict[str, Any] | None:
    """The description of the encoder that training starts from, trained or frozen; None from
    scratch.
    """
    if "audio_encoder" in task.config:
        return task.config["audio_encoder"]
    path = getattr(flags, "init_encoder", None)
    if path is None:
        return None
    return {"path": str(path), ENTRY: stored_settings(path).get(ENTRY)}
