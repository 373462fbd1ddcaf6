"""Polynomial: a power of what is left of the budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class Polynomial:
    """Polynomial decay: m(p) = floor + (1 - floor) (1 - p)^power.

    Args:
        power: exponent, finite and > 0; 1 is a straight line, less holds the peak longer, more decays early. The paper trains with 0.9.
        floor: multiplier at progress 1, in [0, 1].
    """

    title: ClassVar[str] = "Polynomial decay"
    paper: ClassVar[Paper | None] = Paper(
        "1606.00915",
        "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected CRFs",
        2016,
    )

    power: float = 0.9
    floor: float = 0.0

    def __post_init__(self) -> None:
        require(0 < self.power < math.inf, f"power must be finite and > 0, found {self.power}")
        require(0 <= self.floor <= 1, f"floor must lie in [0, 1], found {self.floor}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        return self.floor + (1.0 - self.floor) * (1.0 - progress) ** self.power
