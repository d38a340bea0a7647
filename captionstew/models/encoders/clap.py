"""LAION-CLAP's audio tower under the contract of frozen encoders, through transformers.

The model sees 10 s at 48 kHz. Its own pre-processing takes a random part of a longer clip, or fuses
random parts with a shrunk whole, so that the same clip gives other vectors each time. Here a clip
is cut into consecutive windows of 10 s, each encoded by itself (a fused model's fusion is then not
used), and the last window is repeated and padded as the model's configuration says. A window of 10
s gives 32 frames of the last Swin stage, before the projection to the joint space; each is the mean
over the stage's frequency groups, so that the mean of all 32 is the model's pooled vector. Of the
last window only the frames that its audio reaches are kept.

B clips, W windows of all clips, T frames, D channels.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import ClapAudioConfig, ClapAudioModelWithProjection, ClapFeatureExtractor

from captionstew.models.encoders.base import FrozenEncoder, folder_hash, read_json
from captionstew.models.encoders.speech import load_transformers


class FrozenClap(FrozenEncoder):
    """Frames of the last stage of CLAP's audio tower."""

    def __init__(
        self, model: ClapAudioModelWithProjection, extractor: ClapFeatureExtractor, **identity: str
    ) -> None:
        super().__init__()
        self.model = model
        self.extractor = extractor
        config = model.config
        self.sampling_rate = extractor.sampling_rate
        self.window = extractor.nb_max_samples
        # A window's spectrogram becomes an image: `groups` pieces of time above each other, each
        # this many columns.
        groups = config.spec_size // config.num_mel_bins
        columns = model.audio_model.audio_encoder.input_resolutions[-1][1]
        self.frames_per_window = groups * columns
        self.frame_rate = self.frames_per_window * self.sampling_rate / self.window
        self.dim = config.hidden_size
        self.describe(
            layer=(
                f"last Swin stage ({len(config.depths)}), mean over frequency groups, before the"
                " projection"
            ),
            preprocessing=(
                f"{extractor.feature_size} log-mel bands; consecutive windows of"
                f" {extractor.max_length_s} s, the last one {extractor.padding}; no random"
                " truncation, no fusion"
            ),
            **identity,
        )

    def encode_clips(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """B clips (N_i,) -> frames (B, T, D), lengths (B,)"""
        windows, kept = [], []
        for clip in clips:
            parts = [part for part in clip.split(self.window) if self._frames_of(part) > 0]
            windows.extend(parts)
            kept.append([self._frames_of(part) for part in parts])
        frames = iter(self._encode_windows(windows))
        rows = [torch.cat([next(frames)[:count] for count in counts]) for counts in kept]
        return pad_sequence(rows, batch_first=True), torch.tensor(
            [len(row) for row in rows], device=clips[0].device
        )

    def _frames_of(self, part: Tensor) -> int:
        """Frames that a window's audio reaches; a rest of less than half a frame has none."""
        return round(len(part) / self.window * self.frames_per_window)

    def _encode_windows(self, windows: Sequence[Tensor]) -> Tensor:
        """W windows (N_i,) of at most 10 s -> (W, frames_per_window, D)"""
        samples: list[np.ndarray] = [window.cpu().numpy() for window in windows]
        features = self.extractor(
            samples, sampling_rate=self.sampling_rate, return_tensors="pt"
        ).input_features
        features = features.to(windows[0].device, torch.float32)
        never_longer = torch.zeros(len(windows), 1, dtype=torch.bool, device=features.device)
        hidden = self.model.audio_model(
            input_features=features, is_longer=never_longer
        ).last_hidden_state
        return hidden.mean(dim=2).transpose(
            1, 2
        )  # (W, D, frequency groups, frames) -> (W, frames, D)


def load_clap(folder: Path, name: str) -> FrozenClap:
    """The audio tower in a transformers folder of ClapModel: config.json, preprocessor_config.json
    and weights.

    Raises:
      CheckpointError: files are missing, or weights are missing, unexpected or of another shape.
    """
    read_json(
        folder / "preprocessor_config.json"
    )  # without it truncation and mel scale would be guesses
    return FrozenClap(
        load_transformers(
            ClapAudioModelWithProjection,
            folder,
            ClapAudioConfig.from_pretrained(folder, local_files_only=True),
            ("audio_model.", "audio_projection."),
        ),
        ClapFeatureExtractor.from_pretrained(folder, local_files_only=True),
        path=name,
        sha256=folder_hash(folder),
        preset="clap",
        pretraining="contrastive",
    )
