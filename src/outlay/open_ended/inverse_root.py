"""Inverse square root of what has been spent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class InverseRoot:
    """Linear warm-up, then the inverse square root: m(n) = n / warmup, then 1 / sqrt(1 + (n - warmup) / timescale).

    With timescale = warmup, the default, that is sqrt(warmup / n), the form of the first Transformer.

    Args:
        warmup: amount spent rising, finite and >= 0.
        timescale: amount after the warm-up at which the multiplier is 1 / sqrt(2), > 0; None means ``warmup``, or 10,000 without one.
    """

    title: ClassVar[str] = "Inverse square root"
    paper: ClassVar[Paper | None] = Paper("2106.04560", "Scaling Vision Transformers", 2021)

    warmup: float = 10_000.0
    timescale: float | None = None

    def __post_init__(self) -> None:
        require(0 <= self.warmup < math.inf, f"warmup must be finite and >= 0, found {self.warmup}")
        require(
            self.timescale is None or 0 < self.timescale < math.inf, f"timescale must be finite and > 0, or None, found {self.timescale}"
        )

    def at(self, amount: float) -> float:
        """Return the multiplier after ``amount`` >= 0 has been spent."""
        if amount < self.warmup:
            return amount / self.warmup
        return 1.0 / math.sqrt(1.0 + (amount - self.warmup) / (self.timescale or self.warmup or 10_000.0))
