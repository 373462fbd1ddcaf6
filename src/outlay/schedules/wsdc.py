"""WSDC: warm-up, stable, decay, and constant at what the decay came down to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require
from outlay.schedules.warmup_stable_decay import TAILS, Shape


@dataclass(frozen=True)
class Wsdc:
    """Four phases over the budget: linear rise, constant peak, decay, constant at the end of the decay.

    m(p) = p / warmup for p < warmup; 1 up to 1 - tail - decay; then floor + (1 - floor) f(x) with x from 0 to 1 over decay (the forms f
    are those of ``WarmupStableDecay``, which this is when tail = 0); over the last tail, the value at x = 1. The paper trains on its best
    data in that last phase; it does not say how the budget is shared, so the lengths and the floor are our choice.

    Args:
        warmup: share of the budget spent rising, in [0, 1).
        decay: share of the budget spent in the decay, in (0, 1].
        tail: share of the budget spent constant after it, in [0, 1).
        shape: form of the decay.
        floor: multiplier at the end of the decay, in [0, 1]; inverse_linear needs one > 0.
        half_life: share of the decay in which the exponential halves, finite and > 0; other forms do not use it.
    """

    title: ClassVar[str] = "Warm-up, stable, decay, constant"
    paper: ClassVar[Paper | None] = Paper(
        "2503.12167", "PLM: Efficient Peripheral Language Models Hardware-Co-Designed for Ubiquitous Computing", 2025
    )

    warmup: float = 0.01
    decay: float = 0.1
    tail: float = 0.1
    shape: Shape = "one_minus_sqrt"
    floor: float = 0.1
    half_life: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.warmup < 1, f"warmup must lie in [0, 1), found {self.warmup}")
        require(0 < self.decay <= 1, f"decay must lie in (0, 1], found {self.decay}")
        require(0 <= self.tail < 1, f"tail must lie in [0, 1), found {self.tail}")
        parts = f"{self.warmup} + {self.decay} + {self.tail}"
        require(self.warmup + self.decay + self.tail <= 1 + 1e-9, f"warmup + decay + tail must be at most 1, found {parts}")
        require(self.shape in TAILS, f"shape must be one of {', '.join(TAILS)}, found {self.shape!r}")
        require(0 <= self.floor <= 1, f"floor must lie in [0, 1], found {self.floor}")
        require(self.floor > 0 or self.shape != "inverse_linear", f"the tail inverse_linear needs a floor > 0, found {self.floor}")
        require(1e-300 <= self.half_life < math.inf, f"half_life must be finite and > 0 (at least 1e-300), found {self.half_life}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        if progress < self.warmup:
            return progress / self.warmup
        into_decay = (progress - (1.0 - self.tail - self.decay)) / self.decay
        return 1.0 if into_decay <= 0 else TAILS[self.shape](min(1.0, into_decay), self.floor, self.half_life)
