"""Re-warm and re-decay: how a trained model takes up new data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class Rewarm:
    """Back up to the peak, then a cosine over the budget of the new data.

    m(p) = start + (1 - start) p / rise for p < rise; then floor + (1 - floor) (1 + cos(pi x)) / 2, x = (p - rise) / (1 - rise).
    The length of the rise hardly matters (arXiv 2308.04014 tried 0 to 2 %); that the peak is reached again does.

    Args:
        rise: share of the budget spent rising, in [0, 1).
        start: multiplier that the earlier training ended with, in [0, 1].
        floor: multiplier at progress 1, in [0, 1].
    """

    title: ClassVar[str] = "Re-warm and re-decay"
    paper: ClassVar[Paper | None] = Paper(
        "2403.08763", "Simple and Scalable Strategies to Continually Pre-train Large Language Models", 2024
    )

    rise: float = 0.01
    start: float = 0.1
    floor: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.rise < 1, f"rise must lie in [0, 1), found {self.rise}")
        require(0 <= self.start <= 1, f"start must lie in [0, 1], found {self.start}")
        require(0 <= self.floor <= 1, f"floor must lie in [0, 1], found {self.floor}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        if progress < self.rise:
            return self.start + (1.0 - self.start) * progress / self.rise
        x = (progress - self.rise) / (1.0 - self.rise)
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * x))
