"""REX: the reflected exponential profile, sampled every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class Rex:
    """Reflected exponential: m(p) = floor + (1 - floor) (1 - p) / (1 - p (1 - beta)).

    The paper's profile is beta = 1/2, i.e. (1 - p) / (1/2 + (1 - p)/2). beta = 1 is linear, beta -> 0 holds the peak to the end, and
    beta > 1 decays early. How often the profile is read is the other half of the paper's schedule: see ``Sampled``.

    Args:
        beta: shape, > 0.
        floor: multiplier at progress 1, in [0, 1].
    """

    title: ClassVar[str] = "REX"
    paper: ClassVar[Paper | None] = Paper("2107.04197", "REX: Revisiting Budgeted Training with an Improved Schedule", 2021)

    beta: float = 0.5
    floor: float = 0.0

    def __post_init__(self) -> None:
        require(0 < self.beta < math.inf, f"beta must be finite and > 0, found {self.beta}")
        require(0 <= self.floor <= 1, f"floor must lie in [0, 1], found {self.floor}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        rest = 1.0 - progress  # the denominator 1 - p (1 - beta) is written so that no beta > 0, however small, closes it at p = 1
        return self.floor + (1.0 - self.floor) * rest / (rest + self.beta * progress)
