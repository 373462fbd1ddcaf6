"""Linear: the hard baseline of budgeted training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class Linear:
    """Straight line over the budget: m(p) = start + (end - start) p. With the defaults, decay to zero.

    Args:
        start: multiplier at progress 0, any finite number.
        end: multiplier at progress 1, any finite number.
    """

    title: ClassVar[str] = "Linear decay to zero"
    paper: ClassVar[Paper | None] = Paper(
        "1905.04753", "Budgeted Training: Rethinking Deep Neural Network Training Under Resource Constraints", 2019
    )

    start: float = 1.0
    end: float = 0.0

    def __post_init__(self) -> None:
        require(math.isfinite(self.start), f"start must be finite, found {self.start}")
        require(math.isfinite(self.end), f"end must be finite, found {self.end}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        return self.start * (1.0 - progress) + self.end * progress
