"""Exponential: the same share of the multiplier is lost in equal parts of the budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class Exponential:
    """Exponential decay: m(p) = floor + (1 - floor) exp(-rate p).

    Lost by a factor gamma in each of T steps, the rate is -T ln gamma; to end at the multiplier e without a floor, it is -ln e.

    Args:
        rate: how many times the multiplier falls by the factor e over the budget, finite and >= 0; 0 is constant.
        floor: what the multiplier falls towards, in [0, 1]; it is approached, not reached.
    """

    title: ClassVar[str] = "Exponential decay"
    paper: ClassVar[Paper | None] = None

    rate: float = 5.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.rate < math.inf, f"rate must be finite and >= 0, found {self.rate}")
        require(0 <= self.floor <= 1, f"floor must lie in [0, 1], found {self.floor}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        return self.floor + (1.0 - self.floor) * math.exp(-self.rate * progress)
