"""Power: the learning rate as a power of the tokens seen, whatever the total and the batch size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class Power:
    """Power scheduler: eta(n) = min(peak, batch a n^b) after n tokens, with a linear warm-up to eta(warmup).

    m(n) = eta(n) / peak for n >= warmup; n / warmup eta(warmup) / peak before. The peak holds until n* = (peak / (batch a))^(1/b).
    Give the knob the same ``peak`` and ``OpenEnded`` the unit tokens. The paper's constants are meant for models parametrised by muP,
    and its runs end with a tail over the last 10 % of the tokens: ``OpenEnded(Power(...), "tokens", decay=0.1, shape="linear")``.
    How long the paper warms up is not known to us; there is none by default.

    Args:
        batch: sequences in a batch, > 0; the paper's have 4096 tokens.
        warmup: tokens spent rising, finite and >= 0.
        peak: highest learning rate (the paper's eta_max), the knob's peak, > 0.
        a: the paper's factor, > 0.
        b: the paper's exponent, < 0.
    """

    title: ClassVar[str] = "Power scheduler"
    paper: ClassVar[Paper | None] = Paper(
        "2408.13359", "Power Scheduler: A Batch Size and Token Number Agnostic Learning Rate Scheduler", 2024
    )

    batch: float
    warmup: float = 0.0
    peak: float = 0.02
    a: float = 4.0
    b: float = -0.51

    def __post_init__(self) -> None:
        require(0 < self.batch < math.inf, f"batch must be finite and > 0, found {self.batch}")
        require(0 <= self.warmup < math.inf, f"warmup must be finite and >= 0, found {self.warmup}")
        require(0 < self.peak < math.inf, f"peak must be finite and > 0, found {self.peak}")
        require(0 < self.a < math.inf, f"a must be finite and > 0, found {self.a}")
        require(-math.inf < self.b < 0, f"b must be finite and < 0, found {self.b}")

    def at(self, amount: float) -> float:
        """Return the multiplier of ``peak`` after ``amount`` >= 0 tokens."""
        if amount < self.warmup:
            return amount / self.warmup * self._power(self.warmup)
        return self._power(amount)

    def _power(self, tokens: float) -> float:
        if tokens <= 0:
            return 1.0
        # in logarithms: a power of a tiny amount would overflow where the cap holds anyway
        return math.exp(min(0.0, math.log(self.batch * self.a / self.peak) + self.b * math.log(tokens)))
