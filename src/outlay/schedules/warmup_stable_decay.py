"""Warm-up, stable, decay: a trunk at the peak and a short tail."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from outlay.catalog import Paper
from outlay.schedules.base import require

Shape = Literal["linear", "one_minus_sqrt", "cosine", "exponential"]

#: tail shapes f(x) for x in [0, 1] of the tail, f(0) = 1, before the floor is applied
TAILS: dict[Shape, Callable[[float], float]] = {
    "linear": lambda x: 1.0 - x,
    "one_minus_sqrt": lambda x: 1.0 - math.sqrt(x),
    "cosine": lambda x: 0.5 * (1.0 + math.cos(math.pi * x)),
    "exponential": lambda x: 0.5 ** (x * 10.0),
}


@dataclass(frozen=True)
class WarmupStableDecay:
    """Three phases over the budget: linear rise, constant peak, tail.

    m(p) = p / warmup for p < warmup; 1 up to 1 - decay; then floor + (1 - floor) f((p - 1 + decay) / decay).
    Tails: linear f = 1 - x; one_minus_sqrt f = 1 - sqrt(x); cosine f = (1 + cos(pi x)) / 2; exponential f = 0.5^(10 x), ten half-lives
    (the paper gives a half-life in steps; as a share of the tail it is our choice, f(1) = 0.001).

    Args:
        warmup: share of the budget spent rising, in [0, 1).
        decay: share of the budget spent in the tail, in (0, 1]; the paper finds 0.1 enough.
        shape: form of the tail.
        floor: multiplier at the end of the tail, in [0, 1].
    """

    title: ClassVar[str] = "Warm-up, stable, decay"
    paper: ClassVar[Paper | None] = Paper(
        "2404.06395", "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies", 2024
    )

    warmup: float = 0.01
    decay: float = 0.1
    shape: Shape = "one_minus_sqrt"
    floor: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.warmup < 1, f"warmup must lie in [0, 1), found {self.warmup}")
        require(0 < self.decay <= 1, f"decay must lie in (0, 1], found {self.decay}")
        require(self.warmup + self.decay <= 1 + 1e-9, f"warmup + decay must be at most 1, found {self.warmup} + {self.decay}")
        require(self.shape in TAILS, f"shape must be one of {', '.join(TAILS)}, found {self.shape!r}")
        require(0 <= self.floor <= 1, f"floor must lie in [0, 1], found {self.floor}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        if progress < self.warmup:
            return progress / self.warmup
        into_tail = (progress - (1.0 - self.decay)) / self.decay
        return 1.0 if into_tail <= 0 else self.floor + (1.0 - self.floor) * TAILS[self.shape](min(1.0, into_tail))
