"""One cycle: up to a high peak, and down far below the start."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from outlay.catalog import Paper
from outlay.schedules.base import require

Anneal = Literal["cosine", "linear"]

#: share of the way from one value to the next, at x in [0, 1] of a phase
ANNEALS: dict[Anneal, Callable[[float], float]] = {
    "cosine": lambda x: 0.5 * (1.0 - math.cos(math.pi * x)),
    "linear": lambda x: x,
}


@dataclass(frozen=True)
class OneCycle:
    """One cycle for super-convergence: from start to 1 over rise, then down.

    Two phases: start -> 1 over [0, rise], 1 -> end over [rise, 1].
    Three phases: start -> 1 over [0, rise], 1 -> start over [rise, 2 rise], start -> end over [2 rise, 1]; with linear annealing this is
    the paper's. In every phase m goes from a to b as a + (b - a) s(x): linear s = x, cosine s = (1 - cos(pi x)) / 2.
    The paper moves the momentum against the learning rate: give the momentum a knob of its own for that.

    Args:
        rise: share of the budget up to the peak, in (0, 1); with three phases at most 1/2.
        start: multiplier at progress 0, in [0, 1].
        end: multiplier at progress 1, in [0, 1].
        anneal: form of the phases, cosine or linear.
        phases: 2 or 3.
    """

    title: ClassVar[str] = "One cycle"
    paper: ClassVar[Paper | None] = Paper(
        "1708.07120", "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2017
    )

    rise: float = 0.3
    start: float = 1 / 25
    end: float = 1 / 25e4
    anneal: Anneal = "cosine"
    phases: Literal[2, 3] = 2

    def __post_init__(self) -> None:
        require(self.phases in (2, 3), f"phases must be 2 or 3, found {self.phases}")
        require(0 < self.rise < 1, f"rise must lie in (0, 1), found {self.rise}")
        require(self.phases == 2 or self.rise <= 0.5, f"with three phases rise must be at most 0.5, found {self.rise}")
        require(0 <= self.start <= 1, f"start must lie in [0, 1], found {self.start}")
        require(0 <= self.end <= 1, f"end must lie in [0, 1], found {self.end}")
        require(self.anneal in ANNEALS, f"anneal must be one of {', '.join(ANNEALS)}, found {self.anneal!r}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        if progress <= self.rise:
            return self._between(self.start, 1.0, progress / self.rise)
        if self.phases == 2:
            return self._between(1.0, self.end, (progress - self.rise) / (1.0 - self.rise))
        if progress <= 2 * self.rise:
            return self._between(1.0, self.start, (progress - self.rise) / self.rise)
        return self._between(self.start, self.end, (progress - 2 * self.rise) / (1.0 - 2 * self.rise))

    def _between(self, first: float, last: float, x: float) -> float:
        way = ANNEALS[self.anneal](x)
        return first * (1.0 - way) + last * way
