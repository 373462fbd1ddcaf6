"""Cosine: half a cosine wave from the peak to a floor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class Cosine:
    """Half a cosine wave: m(p) = floor + (1 - floor) (1 + cos(pi p)) / 2.

    Args:
        floor: multiplier at progress 1, in [0, 1].
    """

    title: ClassVar[str] = "Cosine annealing"
    paper: ClassVar[Paper | None] = Paper("1608.03983", "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016)

    floor: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.floor <= 1, f"floor must lie in [0, 1], found {self.floor}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
