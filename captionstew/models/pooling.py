"""Clip vectors from frame sequences. B clips, T frames, D channels."""

import torch
from torch import Tensor


def frame_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """(B,) -> (B, T) bool, True on the first `lengths` frames."""
    return torch.arange(num_frames, device=lengths.device) < lengths.unsqueeze(1)


def mean_pool(frames: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, D), (B,) -> (B, D), the mean over each clip's own frames, in at least float32."""
    if frames.dtype != torch.float64:
        frames = frames.float()
    mask = frame_mask(lengths, frames.size(1)).unsqueeze(-1)
    return frames.masked_fill(~mask, 0.0).sum(1) / lengths.unsqueeze(1).to(frames.dtype)


def mean_and_deviation_pool(frames: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, D), (B,) -> (B, 2D), mean and standard deviation over each clip's own frames."""
    mean = mean_pool(frames, lengths)
    variance = mean_pool((frames - mean.unsqueeze(1)) ** 2, lengths)
    return torch.cat([mean, variance.sqrt()], dim=-1)


POOLINGS = {"mean": mean_pool, "mean_std": mean_and_deviation_pool}
POOLED_DIM = {"mean": 1, "mean_std": 2}  # channels of the pooled vector per channel of the frames


def attention_pool(frames: Tensor, lengths: Tensor, queries: Tensor) -> Tensor:
    """(B, T, D), (B,), queries (K, D) -> (B, K, D): for each query a weighted mean of the clip's
    own frames.

    Weights are softmax_t(q . z_t). This is Multihead(S, Z, Z) of Lee et al. (2019), equation 4, for
    a single learned seed S before the value projection: with one seed only the product of query and
    key projection acts, so it is learned as one vector per attention head, in the space of the
    frames.
    """
    mask = frame_mask(lengths, frames.size(1)).unsqueeze(-1)
    frames = frames.masked_fill(~mask, 0.0)
    weights = (frames @ queries.T).masked_fill(~mask, -torch.inf).softmax(dim=1)  # (B, T, K)
    return weights.transpose(1, 2) @ frames
