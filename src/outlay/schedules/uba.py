"""UBA: one family of decays for budgets counted in iterations, from nearly constant to early decay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class Uba:
    """Unified budget-aware schedule: m(p) = floor + (1 - floor) 2 (1 + c) / (2 phi + (2 - phi) (1 + c)), c = cos(pi x).

    x is the progress inside the phase. phi = 2 is the half cosine, phi -> 0 holds the peak to the end, and m(1/2) = 2 / (2 + phi). The
    paper fits this form to step sizes that are best for the worst curvature. **The formula is a reconstruction**: it could not be compared
    with the paper's text or with code of its authors, and the values of phi that the paper tried are known to us only roughly
    (0.25, 0.5, 1, 2.5, 5, 10); so the default of 1 is our choice.

    Args:
        phi: how badly conditioned the problem is thought to be, finite and > 0; larger decays earlier.
        floor: multiplier at the end of a falling phase, in [0, 1].
        phases: equal phases that the budget is cut into, >= 1.
        alternate: whether phases fall and rise in turn, as in the paper, so that an even number of them ends at the peak; False lets every
            phase fall from the peak.
    """

    title: ClassVar[str] = "UBA"
    paper: ClassVar[Paper | None] = Paper(
        "2505.24452", "Stepsize anything: A unified learning rate schedule for budgeted-iteration training", 2025
    )

    phi: float = 1.0
    floor: float = 0.0
    phases: int = 1
    alternate: bool = True

    def __post_init__(self) -> None:
        require(0 < self.phi < math.inf, f"phi must be finite and > 0, found {self.phi}")
        require(0 <= self.floor <= 1, f"floor must lie in [0, 1], found {self.floor}")
        require(self.phases >= 1, f"phases must be >= 1, found {self.phases}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        # 1e-9 lets 0.3 * 10 count as 3; progress 1 belongs to the last phase
        phase = min(int(progress * self.phases + 1e-9), self.phases - 1)
        x = min(1.0, max(0.0, progress * self.phases - phase))
        wave = 1.0 + math.cos(math.pi * (1.0 - x if self.alternate and phase % 2 else x))
        # the denominator 2 phi + (2 - phi) wave is written so that no phi, however small, closes it
        return self.floor + (1.0 - self.floor) * 2.0 * wave / (self.phi * (2.0 - wave) + 2.0 * wave)
