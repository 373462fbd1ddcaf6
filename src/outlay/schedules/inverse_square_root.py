"""Inverse square root: the decay of the first transformers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class InverseSquareRoot:
    """Inverse square root: m(p) = 1 / sqrt(1 + p / timescale).

    After a warm-up over the share w of the budget, the timescale w / (1 - w) makes it the paper's schedule min(p / w, sqrt(w / p)):
    ``Warmup(0.05, InverseSquareRoot(0.05 / 0.95))``.

    Args:
        timescale: share of this schedule's budget after which the multiplier has fallen to 1 / sqrt(2), finite and > 0. The default goes
            with a warm-up over 5 % of the whole.
    """

    title: ClassVar[str] = "Inverse square root"
    paper: ClassVar[Paper | None] = Paper("1706.03762", "Attention Is All You Need", 2017)

    timescale: float = 0.05 / 0.95

    def __post_init__(self) -> None:
        # below 1e-300 the quotient p / timescale could leave the range of numbers
        require(1e-300 <= self.timescale < math.inf, f"timescale must be finite and > 0 (at least 1e-300), found {self.timescale}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        return 1.0 / math.sqrt(1.0 + progress / self.timescale)
