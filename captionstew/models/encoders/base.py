"""The contract of frozen audio encoders, and what their loaders share."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captionstew.checkpoint import CheckpointError
from captionstew.data.audio import MIN_DURATION, audio_duration, read_audio
from captionstew.files import parse_json
from captionstew.hashing import hash_of, sha256_of_file
from captionstew.models.pooling import mean_pool
from zipformer.safe_load import safe_load

MAX_PEAK = 100.0  # float files may go beyond 1, samples of 16-bit integers far beyond this
LONGEST = 600.0  # seconds that are encoded as a whole
SCALE_ADVICE = "divide 16-bit samples by 32768, and leave out what is not finite"


class FrozenEncoder(nn.Module):
    """Contract of all encoders. Evaluation mode for good, no gradients, a clip's frames never
    depend on its batch.

    Attributes:
      sampling_rate: Hz of the waveforms it takes.
      frame_rate: frames per second it gives.
      dim: channels of a frame.
      description: what it is, for result files: path, sha256 (changes whenever its frames would),
        preset, pretraining, layer, preprocessing, and the three numbers above.
    """

    sampling_rate: int
    frame_rate: float
    dim: int
    description: dict[str, Any]

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Stays in evaluation mode whatever the surrounding model does."""
        return super().train(False)

    def freeze(self) -> Self:
        """Turns gradients off; called once by load_encoder."""
        self.requires_grad_(False).train(False)
        return self

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def forward(
        self, waveforms: Tensor, num_samples: Tensor | Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """(B, N) float in [-1, 1], (B,) -> frames (B, T, dim), lengths (B,)

        A clip shorter than 0.25 s is padded with zeros to 0.25 s, as everywhere in this repository.

        Raises:
          ValueError: shapes that do not fit, a clip without samples, or samples that are integers,
              NaN, infinite or far beyond [-1, 1].
        """
        counts = torch.as_tensor(num_samples).tolist()
        if waveforms.ndim != 2 or not isinstance(counts, list) or len(counts) != len(waveforms):
            raise ValueError(
                f"expected waveforms (B, N) and B numbers of samples, got {tuple(waveforms.shape)},"
                f" {counts}"
            )
        if not all(1 <= count <= waveforms.size(1) for count in counts):
            raise ValueError(
                f"numbers of samples must lie between 1 and {waveforms.size(1)}: {counts}"
            )
        if not waveforms.is_floating_point():
            raise ValueError(f"samples are {waveforms.dtype}, not floating point; {SCALE_ADVICE}")
        peaks = torch.stack([clip[:count].abs().max() for clip, count in zip(waveforms, counts)])
        for number, peak in enumerate(peaks.tolist()):
            if not peak <= MAX_PEAK:
                finite = math.isfinite(peak)
                held = f"samples up to {peak:g}" if finite else "NaN or infinite samples"
                raise ValueError(f"clip {number} has {held}, expected [-1, 1]; {SCALE_ADVICE}")
        shortest = math.ceil(MIN_DURATION * self.sampling_rate)
        clips = [
            F.pad(clip[:count], (0, max(shortest - count, 0)))
            for clip, count in zip(waveforms, counts)
        ]
        return self.encode_clips(clips)

    def encode_clips(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """B clips (N_i,) of at least 0.25 s -> frames (B, T, dim), lengths (B,)"""
        raise NotImplementedError

    @torch.inference_mode()
    def embed(self, audio: str | Path | np.ndarray, sampling_rate: int | None = None) -> np.ndarray:
        """A file, or samples (N,) at `sampling_rate` -> clip embedding (dim,): the mean over
        frames.

        The recording is encoded as a whole, so it may last at most LONGEST seconds; `captionstew
        embed` takes longer ones in pieces.

        Raises:
          BadAudio: the file cannot be used.
          ValueError: a longer recording, samples without their rate, or at another rate than the
            encoder's.
        """
        if isinstance(audio, (str, Path)):
            _refuse_long(audio_duration(audio))
            samples = read_audio(audio, sampling_rate=self.sampling_rate)
        elif sampling_rate != self.sampling_rate:
            raise ValueError(
                f"give samples at {self.sampling_rate} Hz and say so:"
                f" sampling_rate={self.sampling_rate}"
            )
        else:
            if not np.issubdtype(np.asarray(audio).dtype, np.floating):
                kind = np.asarray(audio).dtype
                raise ValueError(f"samples are {kind}, not floating point; {SCALE_ADVICE}")
            samples = np.asarray(audio, dtype=np.float32)
        _refuse_long(len(samples) / self.sampling_rate)
        waveform = torch.from_numpy(samples).to(self.device)
        frames, lengths = self(waveform.unsqueeze(0), [len(samples)])
        return mean_pool(frames, lengths)[0].float().cpu().numpy()

    def describe(
        self,
        *,
        path: str,
        sha256: str,
        preset: str,
        pretraining: str,
        layer: str,
        preprocessing: str,
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


def _refuse_long(seconds: float) -> None:
    if seconds > LONGEST:
        raise ValueError(
            f"{seconds:.0f} s are more than can be encoded as a whole ({LONGEST:.0f} s);"
            " `captionstew embed` takes longer recordings in pieces"
        )


def checkpoint_entries(path: Path) -> dict[str, Any]:
    """The top level of a pickled checkpoint, read with weights-only safety; tensors stay on disk
    where possible.

    Raises:
      CheckpointError: not a file that torch can read, or without names.
    """
    try:
        content = safe_load(path, tensors_on_disk=True)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    return content if isinstance(content, dict) else {}


def read_json(path: Path) -> dict[str, Any]:
    """Raises CheckpointError that names the file, where it is missing or no JSON object."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: missing; it belongs to the weights, download it too"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}, not an object with settings"
        )
    return content


def folder_hash(folder: Path) -> str:
    """Changes with the weights and settings in a folder, and with nothing else."""
    files = sorted(
        {
            *folder.glob("*config.json"),
            *folder.glob("*.safetensors"),
            *folder.glob("pytorch_model*.bin"),
        }
    )
    return f"folder-{hash_of({file.name: sha256_of_file(file) for file in files})}"
