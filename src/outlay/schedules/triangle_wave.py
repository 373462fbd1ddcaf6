"""Triangle wave: a quantity that is pushed up and down in turn and on average left alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class TriangleWave:
    """Wave with mean zero: 0, up to amplitude, through 0 down to -amplitude, and back, in straight lines.

    With u = (cycles p + shift) mod 1: m(p) = 4 amplitude u for u <= 1/4; amplitude - 4 amplitude (u - 1/4) up to 3/4; then
    -amplitude + 4 amplitude (u - 3/4). In the paper it is added to the logits of words of reflection while a model writes.

    Args:
        amplitude: height of the wave in the knob's unit, any finite number; negative begins downwards.
        cycles: waves over the budget, finite and > 0; the default is the paper's, a period of 1200 tokens of 8192.
        shift: where in the wave it begins, as a share of a period, any finite number.
    """

    title: ClassVar[str] = "Triangle wave"
    paper: ClassVar[Paper | None] = Paper(
        "2506.11077", "CyclicReflex: Improving Large Reasoning Models via Cyclical Reflection Token Scheduling", 2025
    )

    amplitude: float = 5.0
    cycles: float = 8192 / 1200
    shift: float = 0.0

    def __post_init__(self) -> None:
        require(math.isfinite(self.amplitude), f"amplitude must be finite, found {self.amplitude}")
        require(0 < self.cycles < math.inf, f"cycles must be finite and > 0, found {self.cycles}")
        require(math.isfinite(self.shift), f"shift must be finite, found {self.shift}")

    def value(self, progress: float) -> float:
        """Return the wave at ``progress`` in [0, 1]."""
        u = (self.cycles * progress + self.shift) % 1.0
        if u <= 0.25:
            return self.amplitude * (4.0 * u)
        return self.amplitude * (1.0 - 4.0 * (u - 0.25)) if u <= 0.75 else self.amplitude * (4.0 * (u - 0.75) - 1.0)
