"""Triangular: cyclical learning rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from outlay.catalog import Paper
from outlay.schedules.base import require

Mode = Literal["triangular", "triangular2", "exp_range"]


@dataclass(frozen=True)
class Triangular:
    """Up and down in straight lines: m(p) = low + (1 - low) a h(x), x the progress inside the cycle.

    h = x / rise up to rise, then (1 - x) / (1 - rise). The amplitude a is 1 (triangular), halves after each cycle, 0.5^k in cycle
    k = 0, 1, ... (triangular2), or falls over the budget as end^p (exp_range).

    Args:
        cycles: how many cycles over the budget, >= 1; the paper advises 3 or more.
        low: lower bound relative to the upper, in [0, 1]; the paper's rule of thumb is 1/3 or 1/4.
        rise: share of a cycle spent rising, in (0, 1).
        mode: what becomes of the amplitude.
        end: amplitude left at the end of the budget with exp_range, in (0, 1]; a factor gamma a step is gamma^T. Other modes do not use it.
    """

    title: ClassVar[str] = "Cyclical learning rates"
    paper: ClassVar[Paper | None] = Paper("1506.01186", "Cyclical Learning Rates for Training Neural Networks", 2015)

    cycles: int = 3
    low: float = 0.25
    rise: float = 0.5
    mode: Mode = "triangular"
    end: float = 0.1

    def __post_init__(self) -> None:
        require(self.cycles >= 1, f"cycles must be >= 1, found {self.cycles}")
        require(0 <= self.low <= 1, f"low must lie in [0, 1], found {self.low}")
        require(0 < self.rise < 1, f"rise must lie in (0, 1), found {self.rise}")
        require(
            self.mode in ("triangular", "triangular2", "exp_range"),
            f"mode must be triangular, triangular2 or exp_range, found {self.mode!r}",
        )
        require(0 < self.end <= 1, f"end must lie in (0, 1], found {self.end}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        # 1e-9 lets 0.3 * 10 count as 3; progress 1 belongs to the last cycle
        cycle = min(int(progress * self.cycles + 1e-9), self.cycles - 1)
        x = min(1.0, max(0.0, progress * self.cycles - cycle))
        height = x / self.rise if x <= self.rise else (1.0 - x) / (1.0 - self.rise)
        amplitude: float = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": self.end**progress}[self.mode]
        return self.low + (1.0 - self.low) * amplitude * height
