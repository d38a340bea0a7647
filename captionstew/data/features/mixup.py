"""Mixup (Zhang et al. 2018) of log-mel features and multi-label targets.

B clips, T frames, F bands, C classes.
"""

import torch
from torch import Tensor


def mixup(
    features: Tensor, lengths: Tensor, targets: Tensor, probability: float, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """features (B, T, F), lengths (B,), targets (B, C) -> the same, a share `probability` of the
    clips mixed

    A mixed clip x is overlaid with another one z of the batch: with w from Beta(alpha, alpha), w >=
    1/2,

        features log(w exp(x) + (1-w) exp(z)),   targets w y_x + (1-w) y_z

    The features are logarithms of energies, and energies of unrelated sounds add up, so this is
    what both sounds played at once give. The padding is digital silence and adds nothing: a mixed
    clip is as long as its longer part. Drawn from PyTorch's global generator.
    """
    batch = len(features)
    chosen = torch.rand(batch) < probability
    weight = torch.distributions.Beta(alpha, alpha).sample((batch,))
    weight = torch.where(chosen, torch.maximum(weight, 1 - weight), 1.0)
    partner = (
        torch.arange(batch) + torch.randint(1, max(batch, 2), (batch,))
    ) % batch  # never the clip itself
    own, other = weight.log()[:, None, None], torch.log1p(-weight)[:, None, None]
    mixed = torch.logaddexp(features + own, features[partner] + other)
    soft = weight[:, None] * targets + (1 - weight[:, None]) * targets[partner]
    return mixed, torch.where(chosen, torch.maximum(lengths, lengths[partner]), lengths), soft
