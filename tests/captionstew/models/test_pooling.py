"""Pooling looks at each clip's own frames."""

import torch

from captionstew.models.pooling import POOLINGS, frame_mask, mean_and_deviation_pool, mean_pool


def test_mask():
    expected = [[True, False, False], [True, True, True]]
    assert frame_mask(torch.tensor([1, 3]), 3).tolist() == expected


def test_padding_is_ignored_even_if_it_is_nan():
    frames = torch.randn(3, 6, 4)
    lengths = torch.tensor([6, 1, 4])
    for row, length in zip(frames, lengths):
        row[length:] = float("nan")
    means, both = mean_pool(frames, lengths), mean_and_deviation_pool(frames, lengths)
    for row, length in enumerate(lengths):
        own = frames[row, :length]
        torch.testing.assert_close(means[row], own.mean(0))
        torch.testing.assert_close(
            both[row], torch.cat([own.mean(0), own.std(0, correction=0)]), rtol=1e-4, atol=1e-6
        )
    assert POOLINGS["mean"] is mean_pool


def test_half_precision_is_pooled_in_single():
    frames = torch.full((1, 5000, 1), 0.1, dtype=torch.bfloat16)
    pooled = mean_pool(frames, torch.tensor([5000]))
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled[0, 0], frames[0, 0, 0].float())
