"""Sound event detection: frames of any encoder at one rate, targets of frames, and what is scored.

Detection works on frames of 1/25 s, frame j from j / 25 to (j + 1) / 25 seconds, the last one to
the clip's end. n clips, T frames, D channels, C classes.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

DETECTION_RATE = 25.0  # frames per second, the paper encoder's own rate

Event = tuple[float, float, int]  # onset, offset (seconds), class index


def num_detection_frames(duration: float) -> int:
    """Frames that a clip of this length (seconds) has: all of 1/25 s, except a shorter last one."""
    return max(1, math.ceil(duration * DETECTION_RATE - 1e-6))


def frame_targets(events: Sequence[Event], num_frames: int, num_classes: int) -> Tensor:
    """-> (T, C) zeros and ones: an event's onset and offset go to the nearest border, at least one
    frame is on.
    """
    targets = torch.zeros(num_frames, num_classes)
    for onset, offset, label in events:
        first = min(int(onset * DETECTION_RATE + 0.5), num_frames - 1)
        stop = max(int(offset * DETECTION_RATE + 0.5), first + 1)
        targets[first:stop, label] = 1.0
    return targets


def to_detection_rate(
    frames: Tensor, lengths: Tensor, frame_rate: float, durations: np.ndarray
) -> tuple[Tensor, Tensor]:
    """(n, T', D) at `frame_rate`, (n,), durations (n,) seconds -> (n, T, D) at 25 Hz, (n,)

    Each detection frame is the mean of the encoder's frames over its own stretch of time, weighted
    by overlap: faster encoders are averaged, slower ones repeated, one at 25 Hz stays as it is.
    What an encoder loses at a clip's ends (convolution without padding) it loses on both sides
    alike, so its frames stand in the middle of the clip, to the nearest detection frame, and the
    first and the last of them fill what is missing.
    """
    counts = torch.tensor([num_detection_frames(duration) for duration in durations])
    resampled = frames.new_zeros(len(frames), int(counts.max()), frames.size(-1))
    for row, (length, count, duration) in enumerate(
        zip(lengths.tolist(), counts.tolist(), durations.tolist())
    ):
        weights = _overlaps(length, count, frame_rate, duration).to(frames.device)
        resampled[row, :count] = weights @ frames[row, :length]
    return resampled, counts


def _overlaps(length: int, count: int, frame_rate: float, duration: float) -> Tensor:
    """(T, T') shares of the encoder's frames in each detection frame; rows sum to 1."""
    lost = max(0.0, duration - length / frame_rate)
    start = math.floor(lost / 2 * DETECTION_RATE + 0.5) / DETECTION_RATE
    borders = start + torch.arange(length + 1, dtype=torch.float64) / frame_rate
    borders[0], borders[-1] = 0.0, max(float(borders[-1]), count / DETECTION_RATE)
    ours = torch.arange(count + 1, dtype=torch.float64) / DETECTION_RATE
    first = torch.maximum(borders[:-1], ours[:-1, None])
    last = torch.minimum(borders[1:], ours[1:, None])
    return ((last - first).clamp(min=0.0) * DETECTION_RATE).float()
