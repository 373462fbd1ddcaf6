"""Cosine with restarts: several cosine cycles over the budget, each from the peak."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class CosineRestarts:
    """Cosine cycles that restart at the peak: m(p) = floor + (1 - floor) (1 + cos(pi x)) / 2, x the progress inside the cycle.

    Cycle i of n takes the share growth^i / (1 + growth + ... + growth^(n - 1)) of the budget, so the last ends exactly with it. The point
    where a cycle ends belongs to the next, save for the end of the budget.

    Args:
        cycles: how many cycles, >= 1; 1 is ``Cosine``.
        growth: length of a cycle relative to the one before, finite and > 0. With the paper's 2 and four cycles of 10, 20, 40 and 80
            epochs the whole is 150 epochs.
        floor: multiplier at the end of each cycle, in [0, 1].
    """

    title: ClassVar[str] = "Cosine with warm restarts"
    paper: ClassVar[Paper | None] = Paper("1608.03983", "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016)

    cycles: int = 4
    growth: float = 2.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        require(self.cycles >= 1, f"cycles must be >= 1, found {self.cycles}")
        require(0 < self.growth < math.inf, f"growth must be finite and > 0, found {self.growth}")
        # shorter cycles than this could not be told apart
        shortest = min(self.growth, 1 / self.growth) ** (self.cycles - 1) / self.cycles
        require(shortest > 1e-6, f"{self.cycles} cycles with growth {self.growth} make one of less than a millionth of the budget")
        require(0 <= self.floor <= 1, f"floor must lie in [0, 1], found {self.floor}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        lengths = [self.growth**i for i in range(self.cycles)]
        total, start, end = math.fsum(lengths), 0.0, 1.0
        for i in range(self.cycles):
            end = math.fsum(lengths[: i + 1]) / total
            # 1e-9 lets a step whose progress is a little below a restart count as having reached it
            if progress < end - 1e-9 or i == self.cycles - 1:
                break
            start = end
        inside = min(1.0, max(0.0, (progress - start) / (end - start)))
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * inside))
