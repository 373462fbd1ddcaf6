"""Hold: rise, then stay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class Hold:
    """Linear rise, then constant for ever: m(n) = min(1, n / warmup). The trunk of warm-up, stable, decay.

    Args:
        warmup: amount spent rising, finite and >= 0; 0 starts at the peak.
    """

    title: ClassVar[str] = "Warm-up, then constant"
    paper: ClassVar[Paper | None] = Paper(
        "2404.06395", "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies", 2024
    )

    warmup: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.warmup < math.inf, f"warmup must be finite and >= 0, found {self.warmup}")

    def at(self, amount: float) -> float:
        """Return the multiplier after ``amount`` >= 0 has been spent."""
        return amount / self.warmup if amount < self.warmup else 1.0
