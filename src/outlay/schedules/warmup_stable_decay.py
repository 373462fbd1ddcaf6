"""Warm-up, stable, decay: a trunk at the peak and a short tail."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from outlay.catalog import Paper
from outlay.schedules.base import require

Shape = Literal["linear", "one_minus_sqrt", "one_minus_square", "cosine", "inverse_linear", "exponential"]


def _above_floor(form: Callable[[float], float]) -> Callable[[float, float, float], float]:
    return lambda x, floor, half_life: floor + (1.0 - floor) * form(x)


#: multiplier at x in [0, 1] of the tail, given the floor and, for the exponential, the half-life as a share of the tail
TAILS: dict[Shape, Callable[[float, float, float], float]] = {
    "linear": _above_floor(lambda x: 1.0 - x),
    "one_minus_sqrt": _above_floor(lambda x: 1.0 - math.sqrt(x)),
    "one_minus_square": _above_floor(lambda x: 1.0 - x * x),
    "cosine": _above_floor(lambda x: 0.5 * (1.0 + math.cos(math.pi * x))),
    "inverse_linear": lambda x, floor, half_life: floor / (x + (1.0 - x) * floor),
    "exponential": lambda x, floor, half_life: floor + (1.0 - floor) * 0.5 ** (x / half_life),
}


@dataclass(frozen=True)
class WarmupStableDecay:
    """Three phases over the budget: linear rise, constant peak, tail.

    m(p) = p / warmup for p < warmup; 1 up to 1 - decay; then floor + (1 - floor) f((p - 1 + decay) / decay).
    Tails: linear f = 1 - x; one_minus_sqrt f = 1 - sqrt(x); one_minus_square f = 1 - x^2; cosine f = (1 + cos(pi x)) / 2; exponential
    f = 0.5^(x / half_life) (the paper gives a half-life in steps; ten half-lives a tail are our choice, f(1) = 0.001). With the tail
    inverse_linear (arXiv 2410.05192) 1 / m goes from 1 to 1 / floor in a straight line: m = 1 / (x / floor + 1 - x).

    Args:
        warmup: share of the budget spent rising, in [0, 1).
        decay: share of the budget spent in the tail, in (0, 1]; the paper finds 0.1 enough.
        shape: form of the tail.
        floor: multiplier at the end of the tail, in [0, 1]; inverse_linear needs one > 0.
        half_life: share of the tail in which the exponential halves, finite and > 0; other tails do not use it.
    """

    title: ClassVar[str] = "Warm-up, stable, decay"
    paper: ClassVar[Paper | None] = Paper(
        "2404.06395", "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies", 2024
    )

    warmup: float = 0.01
    decay: float = 0.1
    shape: Shape = "one_minus_sqrt"
    floor: float = 0.0
    half_life: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.warmup < 1, f"warmup must lie in [0, 1), found {self.warmup}")
        require(0 < self.decay <= 1, f"decay must lie in (0, 1], found {self.decay}")
        require(self.warmup + self.decay <= 1 + 1e-9, f"warmup + decay must be at most 1, found {self.warmup} + {self.decay}")
        require(self.shape in TAILS, f"shape must be one of {', '.join(TAILS)}, found {self.shape!r}")
        require(0 <= self.floor <= 1, f"floor must lie in [0, 1], found {self.floor}")
        require(self.floor > 0 or self.shape != "inverse_linear", f"the tail inverse_linear needs a floor > 0, found {self.floor}")
        # a share below 1e-300 would let the quotient x / half_life leave the range of numbers
        require(1e-300 <= self.half_life < math.inf, f"half_life must be finite and > 0 (at least 1e-300), found {self.half_life}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        if progress < self.warmup:
            return progress / self.warmup
        into_tail = (progress - (1.0 - self.decay)) / self.decay
        return 1.0 if into_tail <= 0 else TAILS[self.shape](min(1.0, into_tail), self.floor, self.half_life)
