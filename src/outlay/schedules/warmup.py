"""Warm-up before any schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import Schedule, require
from outlay.schedules.linear import Linear


@dataclass(frozen=True)
class Warmup:
    """Linear rise, then another schedule over what is left of the budget.

    m(p) = (initial + (1 - initial) p / fraction) then(0) for p < fraction, else then((p - fraction) / (1 - fraction)).

    Args:
        fraction: share of the budget spent rising, in [0, 1).
        then: the schedule that follows; it sees progress 0 to 1 over the rest.
        initial: multiplier at progress 0 relative to the schedule's first value, in [0, 1].
    """

    title: ClassVar[str] = "Linear warm-up before any schedule"
    paper: ClassVar[Paper | None] = Paper("1706.02677", "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017)

    fraction: float = 0.05
    then: Schedule = field(default_factory=Linear)
    initial: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.fraction < 1, f"fraction must lie in [0, 1), found {self.fraction}")
        require(0 <= self.initial <= 1, f"initial must lie in [0, 1], found {self.initial}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        if progress < self.fraction:
            return (self.initial + (1.0 - self.initial) * progress / self.fraction) * self.then.value(0.0)
        return self.then.value((progress - self.fraction) / (1.0 - self.fraction))
