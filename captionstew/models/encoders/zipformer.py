"""Zipformer encoders under the contract of frozen encoders, and the two controls: log-mel bands,
random weights.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captionstew.checkpoint import (
    FORMAT,
    MODEL_ENTRIES,
    CheckpointError,
    refuse_newer,
    require_entries,
)
from captionstew.data.features.fbank import Fbank, FbankConfig
from captionstew.data.manifests.trained_clips import ENTRY
from captionstew.hashing import hash_of, sha256_of_file
from captionstew.models.encoders.base import (
    FrozenEncoder,
    checkpoint_entries,
    folder_hash,
    read_json,
)
from zipformer import Zipformer, ZipformerConfig, load_pretrained
from zipformer.config import PRESETS


class FeatureEncoder(FrozenEncoder):
    """An encoder of the features of captionstew.data.features.fbank, which it computes itself or
    takes.
    """

    sampling_rate = 16000

    def __init__(self, fbank: FbankConfig) -> None:
        super().__init__()
        self.fbank_config = fbank
        self._fbank: Fbank | None = None

    def encode_clips(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """B clips (N_i,) -> frames (B, T, dim), lengths (B,)"""
        if self._fbank is None or self._fbank.device != clips[0].device:
            self._fbank = Fbank(self.fbank_config, clips[0].device)
        return self.encode_features(*self._fbank.extract_batch(clips))

    def encode_features(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, 80), (B,) -> frames (B, T', dim), lengths (B,)"""
        raise NotImplementedError

    @property
    def preprocessing(self) -> str:
        fbank = self.fbank_config
        window, shift = fbank.frame_length * 1000, fbank.frame_shift * 1000
        return f"{fbank.num_mel_bins} log-mel bands, {window:g} ms every {shift:g} ms"


class FrozenZipformer(FeatureEncoder):
    """A Zipformer with its own features in front."""

    frame_rate = 25.0

    def __init__(self, encoder: Zipformer, fbank: FbankConfig, **identity: str) -> None:
        super().__init__(fbank)
        self.encoder = encoder
        self.dim = encoder.output_dim
        self.describe(
            layer="last (all stacks combined)", preprocessing=self.preprocessing, **identity
        )

    def encode_features(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 80), (B,) -> (B, T', dim), (B,)"""
        return self.encoder(features, lengths)


class LogMel(FeatureEncoder):
    """The log-mel bands themselves: what an encoder must beat."""

    frame_rate = 100.0
    dim = 80

    def __init__(self, fbank: FbankConfig | None = None) -> None:
        super().__init__(fbank or FbankConfig())
        self.describe(
            path="logmel",
            sha256=self.fbank_config.hash(),
            preset="logmel",
            pretraining="none",
            layer="input",
            preprocessing=self.preprocessing,
        )

    def encode_features(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 80), (B,) -> the same"""
        return features, lengths


def pretrained_zipformer(path: Path, entries: dict[str, Any] | None = None) -> FrozenZipformer:
    """The encoder of a Zipformer checkpoint or folder; `entries` as in stored_settings.

    Raises:
      CheckpointError: not a checkpoint, of a newer format, without a Zipformer, or with one that
          does not fit.
    """
    settings = stored_settings(path, entries)
    try:
        encoder = load_pretrained(path, batch_invariant=True)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    return frozen_part(encoder, settings, path)


def frozen_part(encoder: Zipformer, settings: dict[str, Any], path: Path) -> FrozenZipformer:
    """The contract around the encoder of a loaded model; `settings` is the config of its checkpoint
    at `path`.
    """
    frozen = FrozenZipformer(
        encoder,
        FbankConfig.from_dict(settings.get("fbank", {})),
        path=str(path),
        sha256=folder_hash(path) if path.is_dir() else sha256_of_file(path),
        preset=settings.get("preset") or _preset_of(encoder.config),
        pretraining=settings.get("task", "unknown"),
    )
    if "coverage" in settings:  # what preparation said of the training data
        frozen.description["data_size"] = settings["coverage"].get("subset", "all")
    if ENTRY in settings:
        frozen.description[ENTRY] = settings[ENTRY]
    return frozen


def random_zipformer(name: str) -> FrozenZipformer:
    """`random:<preset or checkpoint>[:seed]`"""
    found = re.fullmatch(r"random:(.+?)(?::(\d+))?", name)
    if found is None:
        raise ValueError(f"{name}: expected random:<preset or checkpoint>[:seed]")
    source, seed = found.groups(default="0")
    fbank = FbankConfig()
    if Path(source).exists():
        pretrained = pretrained_zipformer(Path(source))
        config, fbank = pretrained.encoder.config, pretrained.fbank_config
    else:
        config = ZipformerConfig.preset(source)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        encoder = Zipformer(config.replace(batch_invariant=True))
    identity = hash_of(
        [config.to_dict(), fbank.to_dict(), int(seed)]
    )  # vectors are cached under it
    return FrozenZipformer(
        encoder, fbank, path=name, sha256=f"random-{identity}", preset=source, pretraining="none"
    )


def stored_settings(path: Path, entries: dict[str, Any] | None = None) -> dict[str, Any]:
    """What our own checkpoints and folders say about themselves; empty for other projects'
    formats. `entries`: those of the file, where they have been read.
    """
    if path.is_dir() or path.suffix == ".safetensors":
        config = (path if path.is_dir() else path.parent) / "config.json"
        content = read_json(config) if config.is_file() else {}
        return content if content.get("format") == FORMAT else {}
    content = checkpoint_entries(path) if entries is None else entries
    if content.get("format") != FORMAT:
        return {"task": "tagging"} if _has_tagging_head(content.get("model")) else {}
    refuse_newer(content, path)
    require_entries(content, path, MODEL_ENTRIES)
    return content["config"]


def _has_tagging_head(weights: Any) -> bool:
    """icefall's tagging recipe keeps its linear layer under this name."""
    return isinstance(weights, dict) and any(key.endswith("classifier.1.weight") for key in weights)


def _preset_of(config: ZipformerConfig) -> str:
    plain = config.replace(batch_invariant=False, swoosh_backend="torch")
    return next(
        (name for name in PRESETS if ZipformerConfig.preset(name) == plain), "of its own size"
    )
