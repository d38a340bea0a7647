"""Numbers that follow the progress of training: piecewise-linear functions of the batch count.

The batch count is the step scaled to a reference amount of audio per step:

    batch_count = step * (max_duration * world_size) / ref_duration

The training loop hands it to the model every few steps with `set_batch_count`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from torch import nn

Point = tuple[float, float]


class PiecewiseLinear:
    """Function through the points (x, y), x strictly increasing, constant outside them."""

    def __init__(self, *points: Point) -> None:
        if not points:
            raise ValueError("a piecewise-linear function needs at least one point")
        self.points: tuple[Point, ...] = tuple((float(x), float(y)) for x, y in points)
        xs = [x for x, _ in self.points]
        if any(a >= b for a, b in zip(xs, xs[1:])):
            raise ValueError(f"the x of a piecewise-linear function must increase: {self.points}")

    def __call__(self, x: float) -> float:
        points = self.points
        if x <= points[0][0]:
            return points[0][1]
        if x >= points[-1][0]:
            return points[-1][1]
        right = bisect_right(points, x, key=lambda point: point[0])
        (x0, y0), (x1, y1) = points[right - 1], points[right]
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)

    def __repr__(self) -> str:
        return f"PiecewiseLinear{self.points}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PiecewiseLinear) and self.points == other.points

    def __hash__(self) -> int:
        return hash(self.points)

    def __mul__(self, factor: float) -> PiecewiseLinear:
        return PiecewiseLinear(*((x, y * factor) for x, y in self.points))

    def __add__(self, other: PiecewiseLinear | float) -> PiecewiseLinear:
        if not isinstance(other, PiecewiseLinear):
            return PiecewiseLinear(*((x, y + other) for x, y in self.points))
        return self._combine(other, self._union(other), lambda a, b: a + b)

    def max(self, other: PiecewiseLinear | float) -> PiecewiseLinear:
        """Pointwise maximum with another function or a constant."""
        return self._extreme(other, max)

    def min(self, other: PiecewiseLinear | float) -> PiecewiseLinear:
        """Pointwise minimum with another function or a constant."""
        return self._extreme(other, min)

    def _extreme(self, other: PiecewiseLinear | float, choose: Callable) -> PiecewiseLinear:
        if not isinstance(other, PiecewiseLinear):
            other = PiecewiseLinear((self.points[0][0], other))
        xs = self._union(other)
        crossings = []
        for a, b in zip(xs, xs[1:]):
            gap_a, gap_b = self(a) - other(a), self(b) - other(b)
            if (gap_a > 0) != (gap_b > 0):
                crossings.append(a + (b - a) * abs(gap_a) / (abs(gap_a) + abs(gap_b)))
        return self._combine(other, sorted({*xs, *crossings}), choose)

    def _union(self, other: PiecewiseLinear) -> list[float]:
        return sorted({x for x, _ in (*self.points, *other.points)})

    def _combine(
        self, other: PiecewiseLinear, xs: list[float], combine: Callable
    ) -> PiecewiseLinear:
        return PiecewiseLinear(*((x, combine(self(x), other(x))) for x in xs))


class ScheduledFloat:
    """A number that follows a `PiecewiseLinear` function of the batch count.

    It is `default` until a batch count is known and in evaluation mode. `value` is recomputed only
    when the batch count or the mode changes, so that reading it during a forward costs an attribute
    access.
    """

    def __init__(self, *points: Point, default: float = 0.0) -> None:
        self.function = PiecewiseLinear(*points)
        self.default = float(default)
        self.batch_count: float | None = None
        self.training = True
        self.value = self.default

    def set(self, *, batch_count: float | None = None, training: bool | None = None) -> None:
        """Move to another batch count or mode; what is not given stays."""
        if batch_count is not None:
            self.batch_count = float(batch_count)
        if training is not None:
            self.training = training
        if self.batch_count is None or not self.training:
            self.value = self.default
        else:
            self.value = self.function(self.batch_count)

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.function.points}, default={self.default},"
            f" value={self.value})"
        )

    def __add__(self, other: ScheduledFloat | float) -> ScheduledFloat:
        if isinstance(other, ScheduledFloat):
            return self._derive(self.function + other.function, self.default + other.default)
        return self._derive(self.function + other, self.default)

    def max(self, other: ScheduledFloat | float) -> ScheduledFloat:
        """Pointwise maximum with another scheduled float or a number."""
        if isinstance(other, ScheduledFloat):
            return self._derive(self.function.max(other.function), max(self.default, other.default))
        return self._derive(self.function.max(other), self.default)

    def _derive(self, function: PiecewiseLinear, default: float) -> ScheduledFloat:
        derived = ScheduledFloat(*function.points, default=default)
        derived.set(batch_count=self.batch_count, training=self.training)
        return derived


class Rate(ScheduledFloat):
    """A scheduled probability of dropping or skipping something: it changes what the forward
    computes.
    """


def constant_rate(probability: float) -> Rate:
    """A rate that is the same at every batch count."""
    return Rate((0.0, probability), default=probability)


class ScheduledModule(nn.Module):
    """A module whose scheduled floats (its attributes) follow `train()`, `eval()` and
    `set_batch_count`.
    """

    def train(self, mode: bool = True) -> ScheduledModule:
        for schedule in self.schedules().values():
            schedule.set(training=mode)
        return super().train(mode)

    def schedules(self) -> dict[str, ScheduledFloat]:
        """Own scheduled floats by attribute name."""
        return {
            name: value for name, value in vars(self).items() if isinstance(value, ScheduledFloat)
        }


def named_schedules(model: nn.Module) -> dict[str, ScheduledFloat]:
    """All scheduled floats of a model by dotted path."""
    return {
        f"{path}.{name}" if path else name: schedule
        for path, module in model.named_modules()
        if isinstance(module, ScheduledModule)
        for name, schedule in module.schedules().items()
    }


def set_batch_count(model: nn.Module, batch_count: float) -> None:
    """Hand the batch count (see the top of this file) to every scheduled float of the model,
    wrapped or not.
    """
    for schedule in named_schedules(model).values():
        schedule.set(batch_count=batch_count)


def get_batch_count(model: nn.Module) -> float | None:
    """Batch count last given to the model; None before the first."""
    return next((schedule.batch_count for schedule in named_schedules(model).values()), None)


def zero_rates(model: nn.Module) -> None:
    """Switch off, for good, every dropout, skip and mask of the model: training then computes what
    evaluation does.
    """
    for schedule in named_schedules(model).values():
        if isinstance(schedule, Rate):
            schedule.function, schedule.default = PiecewiseLinear((0.0, 0.0)), 0.0
            schedule.set()
