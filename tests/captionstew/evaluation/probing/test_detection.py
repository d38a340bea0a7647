"""Frames of every encoder at 25 Hz, targets, and what a silent clip costs."""

import numpy as np
import pytest
import torch

from captionstew.evaluation.probing.clips import DetectionClips
from captionstew.evaluation.probing.detection import (
    frame_targets,
    num_detection_frames,
    to_detection_rate,
)
from captionstew.evaluation.probing.fit import PADDING_TARGET, frame_binary_cross_entropy_per_head


def resample(frames, rate, duration):
    x = torch.as_tensor(frames, dtype=torch.float32).reshape(1, len(frames), -1)
    out, counts = to_detection_rate(x, torch.tensor([len(frames)]), rate, np.array([duration]))
    return out[0, : counts[0]].squeeze(-1)


def test_frames_of_a_clip():
    assert [num_detection_frames(seconds) for seconds in (10.0, 9.99, 0.04, 0.041, 0.01)] == [
        250,
        250,
        1,
        2,
        1,
    ]


def test_a_faster_encoder_is_averaged_and_a_slower_one_repeated():
    assert resample([1, 3, 5, 7, 9, 11, 13, 15], 100.0, 0.08).tolist() == [4.0, 12.0]
    assert resample([1.0, 2.0], 6.25, 0.32).tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    torch.testing.assert_close(resample([0.0, 3.0, 6.0], 75.0, 0.04), torch.tensor([3.0]))
    third = resample([0.0, 3.0, 9.0, 9.0, 9.0], 62.5, 0.08)
    torch.testing.assert_close(third, torch.tensor([(0 + 3 + 9 / 2) / 2.5, 9.0]))


def test_25_hz_stays_and_what_the_ends_lack_is_filled_from_both_sides():
    frames = torch.arange(10.0)
    assert torch.equal(resample(frames, 25.0, 0.4), frames)
    assert resample(frames, 25.0, 0.48).tolist() == [0, *range(10), 9]
    assert resample(frames, 25.0, 0.44).tolist() in ([*range(10), 9], [0, *range(10)])
    assert resample(frames[:5], 25.0, 0.1).tolist() == [
        0,
        1,
        2,
    ]  # padded to 0.25 s before it was encoded


def test_clips_of_a_batch_do_not_mix():
    x = torch.randn(2, 30, 3)
    both, counts = to_detection_rate(x, torch.tensor([30, 12]), 50.0, np.array([0.6, 0.24]))
    alone, _ = to_detection_rate(x[1:, :12], torch.tensor([12]), 50.0, np.array([0.24]))
    assert counts.tolist() == [15, 6] and not both[1, 6:].any()
    torch.testing.assert_close(both[1, :6], alone[0])


def test_targets_go_to_the_nearest_border_and_no_event_vanishes():
    targets = frame_targets(
        [(0.05, 0.13, 0), (0.121, 0.122, 1), (0.2, 9.0, 2), (0.39, 0.4, 1)], 10, 3
    )
    assert targets[:, 0].tolist() == [0, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert targets[:, 1].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 1]
    assert targets[:, 2].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]


def test_padding_does_not_count_in_the_loss():
    frames = {"a": torch.randn(4, 2), "b": torch.randn(9, 2)}

    def source(ids):
        lengths = torch.tensor([len(frames[name]) for name in ids])
        return (
            torch.nn.utils.rnn.pad_sequence([frames[name] for name in ids], batch_first=True),
            lengths,
        )

    clips = DetectionClips(
        source, ["a", "b"], [[(0.0, 0.08, 1)], []], np.array([0.16, 0.36]), 3, 25.0
    )
    (x, lengths), targets = clips.batch(torch.tensor([0, 1]))
    assert x.shape == (2, 9, 2) and lengths.tolist() == [4, 9] and clips.frames_per_clip == 9
    assert (targets[0, 4:] == PADDING_TARGET).all() and targets[0, :4, 1].tolist() == [1, 1, 0, 0]
    logits = torch.randn(5, 2, 9, 3)
    loss = frame_binary_cross_entropy_per_head(logits, targets)
    own = torch.cat([logits[:, 0, :4], logits[:, 1]], dim=1)
    known = torch.cat([targets[0, :4], targets[1]]).expand_as(own)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        own, known, reduction="none"
    ).mean((1, 2))
    torch.testing.assert_close(loss, expected)
    logits[:, 0, 4:] = 1e4
    torch.testing.assert_close(frame_binary_cross_entropy_per_head(logits, targets), expected)


def test_statistics_are_those_of_the_clips_own_frames():
    frames = {str(number): torch.randn(number + 3, 2) * 3 + 1 for number in range(10)}

    def source(ids):
        lengths = torch.tensor([len(frames[name]) for name in ids])
        return (
            torch.nn.utils.rnn.pad_sequence([frames[name] for name in ids], batch_first=True),
            lengths,
        )

    durations = np.array([len(one) / 25 for one in frames.values()])
    clips = DetectionClips(source, list(frames), [[]] * 10, durations, 3, 25.0)
    mean, deviation = clips.statistics()
    every = torch.cat(list(frames.values()))
    torch.testing.assert_close(mean, every.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(deviation, every.std(0, correction=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rate", [6.25, 25.0, 49.95, 75.0, 100.0])
def test_weights_of_every_detection_frame_sum_to_one(rate):
    for seconds in (0.25, 1.0, 3.37, 10.0):
        ones = torch.ones(max(1, int(seconds * rate) - 1))
        torch.testing.assert_close(
            resample(ones, rate, seconds), torch.ones(num_detection_frames(seconds))
        )
