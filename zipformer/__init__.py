"""The Zipformer audio encoder, its optimiser and its learning-rate schedule. Needs torch only."""

from zipformer.checkpoint import load_pretrained
from zipformer.config import ZipformerConfig
from zipformer.eden import Eden
from zipformer.model import Zipformer
from zipformer.parameter_groups import get_parameter_groups
from zipformer.scaled_adam import ScaledAdam
from zipformer.schedules import set_batch_count
from zipformer.state import load_training_state, training_state
from zipformer.tagging import AudioTagger

__all__ = [
    "AudioTagger",
    "Eden",
    "ScaledAdam",
    "Zipformer",
    "ZipformerConfig",
    "get_parameter_groups",
    "load_pretrained",
    "load_training_state",
    "set_batch_count",
    "training_state",
]
