"""Frozen audio encoders behind one contract, for every evaluation.

    encoder = load_encoder("exp/contrastive/pretrained.pt")
    frames, lengths = encoder(waveforms, num_samples)   # (B, N) in [-1, 1], (B,) -> (B, T, dim), (B,)
    vector = encoder.embed("dog.wav")                   # (dim,)

An encoder is named by

    a file              a Zipformer checkpoint (ours, icefall's, Auden's), or BEATs as its authors distribute it
    a folder            what its config.json says: wav2vec2, hubert, wavlm, mert_model, clap in transformers' layout;
                        anything else must hold a Zipformer (`captionstew export`, Auden)
    hf:OWNER/NAME       such a folder on the Hugging Face Hub; the only name for which anything is downloaded
    logmel              80 log-mel bands: a floor
    random:PRESET[:SEED], random:CHECKPOINT[:SEED]   a Zipformer with random weights: a control

Systems whose code cannot be run here take part by files of vectors: see captionstew.models.stored_embeddings.
"""

import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captionstew.data.audio import MIN_DURATION, read_audio
from captionstew.hashing import hash_of, sha256_of_file
from captionstew.models.pooling import mean_pool
from captionstew.training.checkpoint import CheckpointError

SPEECH_TYPES = ("wav2vec2", "hubert", "wavlm", "mert_model")  # `model_type` in transformers' config.json


class FrozenEncoder(nn.Module):
    """Contract of all encoders. Evaluation mode for good, no gradients, a clip's frames never depend on its batch.

    Attributes:
      sampling_rate: Hz of the waveforms it takes.
      frame_rate: frames per second it gives.
      dim: channels of a frame.
      description: what it is, for result files: path, sha256 (changes whenever its frames would), preset, pretraining,
        layer, preprocessing, and the three numbers above.
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

    def forward(self, waveforms: Tensor, num_samples: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """(B, N) float in [-1, 1], (B,) -> frames (B, T, dim), lengths (B,)

        A clip shorter than 0.25 s is padded with zeros to 0.25 s, as everywhere in this repository.

        Raises:
          ValueError: shapes that do not fit, or a clip without samples.
        """
        counts = torch.as_tensor(num_samples).tolist()
        if waveforms.ndim != 2 or not isinstance(counts, list) or len(counts) != len(waveforms):
            raise ValueError(
                f"expected waveforms (B, N) and B numbers of samples, got {tuple(waveforms.shape)}, {counts}"
            )
        if not all(1 <= count <= waveforms.size(1) for count in counts):
            raise ValueError(f"numbers of samples must lie between 1 and {waveforms.size(1)}: {counts}")
        shortest = math.ceil(MIN_DURATION * self.sampling_rate)
        clips = [F.pad(clip[:count], (0, max(shortest - count, 0))) for clip, count in zip(waveforms, counts)]
        return self.encode_clips(clips)

    def encode_clips(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """B clips (N_i,) of at least 0.25 s -> frames (B, T, dim), lengths (B,)"""
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
        frames, lengths = self(waveform.unsqueeze(0), [len(samples)])
        return mean_pool(frames, lengths)[0].float().cpu().numpy()

    def describe(
        self, *, path: str, sha256: str, preset: str, pretraining: str, layer: str, preprocessing: str
    ) -> None:
        """Sets `description`, once rates and dimension are known."""
        self.description = {
            "path": path,
            "sha256": sha256,
            "preset": preset,
            "pretraining": pretraining,
            "layer": layer,
            "preprocessing": preprocessing,
            "sampling_rate": self.sampling_rate,
            "frame_rate": self.frame_rate,
            "dim": self.dim,
        }


def load_encoder(path_or_name: str | Path, device: str | torch.device = "cpu") -> FrozenEncoder:
    """The frozen encoder that a name stands for (the names are listed at the top of this module).

    Raises:
      CheckpointError: no such file, not an encoder, of a newer format, or weights that do not fit.
      ValueError: an unknown preset after `random:`.
      UserError: an optional package is missing; the message says which to install.
    """
    return _load(str(path_or_name)).freeze().to(device)


def _load(name: str) -> FrozenEncoder:
    from captionstew.models import frozen_zipformer

    if name == "logmel":
        return frozen_zipformer.LogMel()
    if name.startswith("random:") and len(name) > len("random:"):
        return frozen_zipformer.random_zipformer(name)
    if name.startswith("hf:"):
        return _from_folder(_download(name.removeprefix("hf:")), name)
    path = Path(name)
    if path.is_dir():
        return _from_folder(path, name)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file or folder; give a checkpoint, hf:OWNER/NAME, `logmel` or `random:<preset>`"
        )
    if path.suffix != ".safetensors" and _is_beats(path):
        from captionstew.models.frozen_beats import load_beats

        return load_beats(path)
    return frozen_zipformer.pretrained_zipformer(path)


def _from_folder(folder: Path, name: str) -> FrozenEncoder:
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if config.get("model_type") in SPEECH_TYPES:
        from captionstew.models.frozen_speech import load_speech_transformer

        return load_speech_transformer(folder, name)
    if config.get("model_type") == "clap" and "audio_config" in config:
        from captionstew.models.frozen_clap import load_clap

        return load_clap(folder, name)
    if not (folder / "model.safetensors").is_file():
        kind = f"model_type {config['model_type']!r}" if "model_type" in config else "no model_type"
        known = ", ".join((*SPEECH_TYPES, "clap"))
        raise CheckpointError(
            f"{folder}: neither a transformers folder that is known here ({kind}; known: {known}) nor one with a "
            "Zipformer in model.safetensors"
        )
    from captionstew.models.frozen_zipformer import pretrained_zipformer

    return pretrained_zipformer(folder)


def _is_beats(path: Path) -> bool:
    content = checkpoint_entries(path)
    weights = content.get("model")
    return "cfg" in content and isinstance(weights, dict) and "patch_embedding.weight" in weights


def checkpoint_entries(path: Path) -> dict[str, Any]:
    """The top level of a pickled checkpoint, read with weights-only safety; tensors stay on disk where possible.

    Raises:
      CheckpointError: not a file that torch can read, or without names.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds for files that are something else
        if "Unsupported global" in str(error):
            return {}  # the loader of the format explains what to do about other objects in a pickle
        raise CheckpointError(
            f"{path}: torch cannot read it as a checkpoint ({type(error).__name__}); it is damaged or something else"
        ) from error
    return content if isinstance(content, dict) else {}


def read_json(path: Path) -> dict[str, Any]:
    """Raises CheckpointError that names the file, where it is missing or no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; it belongs to the weights, download it too") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not an object with settings")
    return content


def folder_hash(folder: Path) -> str:
    """Changes with the weights and settings in a folder, and with nothing else."""
    files = sorted({*folder.glob("*config.json"), *folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")})
    return f"folder-{hash_of({file.name: sha256_of_file(file) for file in files})}"


def _download(name: str) -> Path:
    """The folder of a model on the Hub, from the cache if it is there; safetensors where the model has them."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=["*.json", "pytorch_model*.bin"]))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"hf:{name}: not in the cache and cannot be downloaded ({reason}); download its folder elsewhere and give "
            "the folder's path"
        ) from error
    return folder
