"""WSD-S: one run with a good checkpoint at each of several budget points."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require
from outlay.schedules.warmup_stable_decay import TAILS, Shape


@dataclass(frozen=True)
class WsdS:
    """Stable, with a tail inside the main line before each budget point, and back to the peak at once.

    For budget point b the tail covers [(1 - decay) b, b): 1 / m goes from 1 to 1 / floor in a straight line, m = 1 / (x / floor + 1 - x),
    x the progress inside the tail. At b itself m is 1 again, without a second warm-up and with the weights that were decayed; elsewhere m
    is 1. The step that ends at b is the last of its tail: save there. The whole budget is always the last point.

    Args:
        at: budget points as shares of the whole, in (0, 1], rising; the paper's are 50, 100 and 200 billion tokens.
        decay: length of a tail as a share of all that is spent up to its point, in (0, 1).
        floor: multiplier at the end of a tail, in [0, 1]; inverse_linear needs one > 0.
        warmup: share of the whole budget spent rising from 0, in [0, 1); it must end before the first tail begins.
        shape: form of the tails, as in ``WarmupStableDecay``; the exponential halves ten times.
    """

    title: ClassVar[str] = "WSD-S"
    paper: ClassVar[Paper | None] = Paper(
        "2410.05192", "Understanding Warmup-Stable-Decay Learning Rates: A River Valley Loss Landscape Perspective", 2024
    )

    at: tuple[float, ...] = (0.25, 0.5, 1.0)
    decay: float = 0.1
    floor: float = 0.1
    warmup: float = 0.0
    shape: Shape = "inverse_linear"

    def __post_init__(self) -> None:
        require(all(0 < point <= 1 for point in self.at), f"every point of at must lie in (0, 1], found {self.at}")
        require(list(self.at) == sorted(set(self.at)), f"the points of at must rise, found {self.at}")
        require(0 < self.decay < 1, f"decay must lie in (0, 1), found {self.decay}")
        require(0 <= self.floor <= 1, f"floor must lie in [0, 1], found {self.floor}")
        require(self.shape in TAILS, f"shape must be one of {', '.join(TAILS)}, found {self.shape!r}")
        require(self.floor > 0 or self.shape != "inverse_linear", f"the tail inverse_linear needs a floor > 0, found {self.floor}")
        points = self._points()
        first = (1.0 - self.decay) * points[0]
        require(0 <= self.warmup <= first + 1e-9, f"warmup must lie in [0, {first:g}], where the first tail begins, found {self.warmup}")
        for one, other in pairwise(points):
            begins = (1.0 - self.decay) * other
            require(one <= begins + 1e-9, f"the tail before {other:g} would begin at {begins:g}, before the budget point {one:g}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        if progress < self.warmup:
            return progress / self.warmup
        # 1e-9 lets a step whose progress is a little below a budget point count as having reached it
        point = next((point for point in self._points() if progress < point - 1e-9), 1.0)
        into_tail = (progress - (1.0 - self.decay) * point) / (self.decay * point)
        return 1.0 if into_tail <= 0 else TAILS[self.shape](min(1.0, into_tail), self.floor, 0.1)

    def _points(self) -> tuple[float, ...]:
        return (*(point for point in self.at if point < 1.0 - 1e-9), 1.0)
