"""Frozen audio encoders behind one contract, for every evaluation.

    encoder = load_encoder("exp/contrastive/pretrained.pt")
    frames, lengths = encoder(waveforms, num_samples)   # (B, N) in [-1, 1], (B,) -> (B, T, dim), (B,)
    vector = encoder.embed("dog.wav")                   # (dim,)

Names that are not files: `logmel` (80 log-mel bands, a floor), `random:<preset or checkpoint>[:seed]` (the same
architecture with random weights, a control).
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captionstew.data.audio import read_audio
from captionstew.data.fbank import Fbank, FbankConfig
from captionstew.hashing import hash_of, sha256_of_file
from captionstew.models.pooling import mean_pool
from captionstew.training.checkpoint import CheckpointError, load_checkpoint
from zipformer import Zipformer, ZipformerConfig, load_pretrained


class FrozenEncoder(nn.Module):
    """Contract of all encoders. Evaluation mode for good, no gradients, a clip's frames never depend on its batch.

    Attributes:
      sampling_rate: Hz of the waveforms it takes.
      frame_rate: frames per second it gives.
      dim: channels of a frame.
      description: what it is, for result files: path, sha256, preset, pretraining.
    """

    sampling_rate: int
    frame_rate: float
    dim: int
    description: dict[str, Any]

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Stays in evaluation mode whatever the surrounding model does."""
        return super().train(False)

    def freeze(self) -> "FrozenEncoder":
        """Turns gradients off; called once by load_encoder."""
        return self.requires_grad_(False).train(False)

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def forward(self, waveforms: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) float in [-1, 1], (B,) -> frames (B, T, dim), lengths (B,)"""
        raise NotImplementedError

    @torch.inference_mode()
    def embed(self, audio: str | Path | np.ndarray, sampling_rate: int | None = None) -> np.ndarray:
        """A file, or samples (N,) at `sampling_rate` -> clip embedding (dim,): the mean over frames.

        Raises:
          BadAudio: the file cannot be used.
          ValueError: samples without their rate, or at another rate than the encoder's.
        """
        if isinstance(audio, (str, Path)):
            samples = read_audio(audio, sampling_rate=self.sampling_rate)
        elif sampling_rate != self.sampling_rate:
            raise ValueError(f"give samples at {self.sampling_rate} Hz and say so: sampling_rate={self.sampling_rate}")
        else:
            samples = np.asarray(audio, dtype=np.float32)
        waveform = torch.from_numpy(samples).to(self.device)
        frames, lengths = self(waveform.unsqueeze(0), torch.tensor([len(samples)], device=self.device))
        return mean_pool(frames, lengths)[0].float().cpu().numpy()


class FrozenZipformer(FrozenEncoder):
    """A Zipformer with its own features in front."""

    sampling_rate = 16000
    frame_rate = 25.0

    def __init__(self, encoder: Zipformer, fbank: FbankConfig, description: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = encoder
        self.fbank_config = fbank
        self.dim = encoder.output_dim
        self.description = description
        self._fbank: Fbank | None = None

    def forward(self, waveforms: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N), (B,) -> (B, T, dim), (B,)"""
        if self._fbank is None or self._fbank.device != waveforms.device:
            self._fbank = Fbank(self.fbank_config, waveforms.device)
        clips = [clip[:count] for clip, count in zip(waveforms, num_samples.tolist())]
        return self.encode_features(*self._fbank.extract_batch(clips))

    def encode_features(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, 80), (B,) -> frames (B, T', dim), (B,)"""
        return self.encoder(features, lengths)


class LogMel(FrozenEncoder):
    """The log-mel bands themselves: what an encoder must beat."""

    sampling_rate = 16000
    frame_rate = 100.0
    dim = 80

    def __init__(self, fbank: FbankConfig | None = None) -> None:
        super().__init__()
        self.fbank_config = fbank or FbankConfig()
        self.description = {
            "path": "logmel",
            "sha256": self.fbank_config.hash(),
            "preset": "logmel",
            "pretraining": "none",
        }
        self._fbank = Fbank(self.fbank_config)

    def forward(self, waveforms: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N), (B,) -> (B, T, 80), (B,)"""
        return self._fbank.extract_batch([clip[:count] for clip, count in zip(waveforms, num_samples.tolist())])

    def encode_features(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 80), (B,) -> the same"""
        return features, lengths


def load_encoder(path_or_name: str | Path, device: str | torch.device = "cpu") -> FrozenEncoder:
    """The frozen encoder of a checkpoint (ours, icefall's or Auden's), or a control by name.

    Raises:
      CheckpointError: neither a known name nor a readable checkpoint with an audio encoder.
    """
    name = str(path_or_name)
    if name == "logmel":
        encoder: FrozenEncoder = LogMel()
    elif name.startswith("random:") and len(name) > len("random:"):
        encoder = _random_zipformer(name)
    else:
        encoder = _pretrained_zipformer(Path(path_or_name))
    return encoder.freeze().to(device)


def _pretrained_zipformer(path: Path) -> FrozenZipformer:
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; give a checkpoint, `logmel` or `random:<preset or checkpoint>`")
    encoder = load_pretrained(path, batch_invariant=True)
    settings: dict[str, Any] = {}
    if path.suffix == ".pt" and (content := _own_checkpoint(path)) is not None:
        settings = content["config"]
    file = path / "model.safetensors" if path.is_dir() else path
    description = {
        "path": str(path),
        "sha256": sha256_of_file(file),
        "preset": settings.get("preset", "from checkpoint"),
        "pretraining": settings.get("task", "unknown"),
    }
    return FrozenZipformer(encoder, FbankConfig.from_dict(settings.get("fbank", {})), description)


def _random_zipformer(name: str) -> FrozenZipformer:
    """`random:<preset or checkpoint>[:seed]`"""
    source, seed = re.fullmatch(r"random:(.+?)(?::(\d+))?", name).groups(default="0")
    fbank = FbankConfig()
    if Path(source).exists():
        pretrained = _pretrained_zipformer(Path(source))
        config, fbank = pretrained.encoder.config, pretrained.fbank_config
    else:
        config = ZipformerConfig.preset(source)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        encoder = Zipformer(replace(config, batch_invariant=True))
    identity = hash_of([config.to_dict(), fbank.to_dict(), int(seed)])  # vectors are cached under it
    description = {"path": name, "sha256": f"random-{identity}", "preset": source, "pretraining": "none"}
    return FrozenZipformer(encoder, fbank, description)


def _own_checkpoint(path: Path) -> dict[str, Any] | None:
    try:
        return load_checkpoint(path)
    except CheckpointError:
        return None  # another project's format, which load_pretrained has accepted
