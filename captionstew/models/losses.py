"""What a model says a batch costs."""

from typing import NamedTuple

from torch import Tensor


class Losses(NamedTuple):
    """What one batch costs. `total` and `terms` are sums over this process's clips; `gauges` are
    plain numbers.
    """

    total: Tensor
    terms: dict[str, Tensor]
    gauges: dict[str, Tensor]
