"""What is counted between two progress lines."""

import torch

from captionstew.models.losses import Losses
from captionstew.training.state import Window
from zipformer.scaled_adam import StepReport


def test_seconds_of_audio_at_any_rate():
    window = Window()
    for rate in (16_000, 48_000):
        batch = {
            "cut_ids": ["a", "b"],
            "num_samples": torch.tensor([10 * rate, 5 * rate]),
            "sampling_rate": rate,
            "features": torch.zeros(2, 4, 3),
            "feature_lengths": torch.tensor([4, 2]),
        }
        losses = Losses(torch.tensor(1.0), {"loss": torch.tensor(1.0)}, {})
        window.count_step([batch], [losses], StepReport())
    assert window.sums["audio_seconds"] == 30 and window.sums["clips"] == 4
    assert (window.sums["valid_frames"], window.sums["all_frames"]) == (12, 16)
