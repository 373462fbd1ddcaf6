"""Cyclic cosine: a cosine cycle that ends at each of several budget points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class CyclicCosine:
    """A cosine cycle from the peak to the floor up to each budget point: m(p) = floor + (1 - floor) (1 + cos(pi x)) / 2.

    x is the progress from one budget point to the next. At a point m is 1 again; the step that ends there is the last of its cycle. The
    whole budget is always the last point. The paper uses it as the baseline of ``WsdS``.

    Args:
        at: budget points as shares of the whole, in (0, 1], rising.
        floor: multiplier at the end of a cycle, in [0, 1].
    """

    title: ClassVar[str] = "Cyclic cosine"
    paper: ClassVar[Paper | None] = Paper(
        "2410.05192", "Understanding Warmup-Stable-Decay Learning Rates: A River Valley Loss Landscape Perspective", 2024
    )

    at: tuple[float, ...] = (0.25, 0.5, 1.0)
    floor: float = 0.1

    def __post_init__(self) -> None:
        require(all(0 < point <= 1 for point in self.at), f"every point of at must lie in (0, 1], found {self.at}")
        require(list(self.at) == sorted(set(self.at)), f"the points of at must rise, found {self.at}")
        require(0 <= self.floor <= 1, f"floor must lie in [0, 1], found {self.floor}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        # 1e-9 lets a step whose progress is a little below a budget point count as having reached it
        passed = [point for point in self.at if point < 1.0 - 1e-9 and progress >= point - 1e-9]
        start = passed[-1] if passed else 0.0
        end = next((point for point in self.at if start < point < 1.0 - 1e-9), 1.0)
        x = min(1.0, max(0.0, (progress - start) / (end - start)))
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * x))
