"""Clip embeddings of files with any frozen encoder."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from captionstew.inference.audio_files import AudioFiles
from captionstew.models.encoders.base import FrozenEncoder
from captionstew.models.pooling import mean_pool

BATCH_SECONDS = 240.0  # of audio, padding included


@torch.inference_mode()
def embed_files(
    encoder: FrozenEncoder,
    files: AudioFiles,
    max_duration: float = BATCH_SECONDS,
    num_workers: int = 0,
) -> np.ndarray:
    """-> (len(files.used), dim) float32: the mean over all frames of each file that could be read,
    in their order

    What is batched together changes nothing beyond rounding; files that cannot be read are in
    `files.failed`.
    """
    sums: dict[str, np.ndarray] = {}
    frames_of: dict[str, int] = {}
    for pieces, frames, lengths in encoded(encoder, files, max_duration, num_workers):
        means = mean_pool(frames, lengths).float().cpu().numpy()
        for piece, mean, length in zip(pieces, means, lengths.tolist()):
            sums[piece.file] = sums.get(piece.file, 0.0) + mean * length
            frames_of[piece.file] = frames_of.get(piece.file, 0) + length
    if not sums:
        return np.zeros((0, encoder.dim), dtype=np.float32)
    return np.stack([sums[file] / frames_of[file] for file in files.used]).astype(np.float32)


def encoded(
    encoder: FrozenEncoder, files: AudioFiles, max_duration: float, num_workers: int
) -> Iterator[tuple[list[Any], Tensor, Tensor]]:
    """-> pieces, frames (B, T, dim), lengths (B,), batch by batch with a progress bar on a
    terminal
    """
    begun: set[str] = set()
    with tqdm(total=len(files.files), unit="file", disable=None, leave=False) as progress:
        for pieces, waveforms, counts in files.batches(
            encoder.sampling_rate, max_duration, num_workers
        ):
            frames, lengths = encoder(waveforms.to(encoder.device), counts)
            new = {piece.file for piece in pieces} - begun
            begun |= new
            progress.update(len(new))
            yield pieces, frames, lengths
