"""Step decay: the multiplier falls by a factor at each milestone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class StepDecay:
    """Fall by a factor at milestones: m(p) = factor^(number of milestones <= p). The defaults are the 30-60-90 recipe.

    Args:
        milestones: shares of the budget at which the multiplier falls, each in (0, 1], rising; none means constant.
        factor: what the multiplier is multiplied by at a milestone, in [0, 1].
    """

    title: ClassVar[str] = "Step decay"
    paper: ClassVar[Paper | None] = Paper("1512.03385", "Deep Residual Learning for Image Recognition", 2015)

    milestones: tuple[float, ...] = (0.3, 0.6, 0.9)
    factor: float = 0.1

    def __post_init__(self) -> None:
        require(all(0 < point <= 1 for point in self.milestones), f"every milestone must lie in (0, 1], found {self.milestones}")
        require(list(self.milestones) == sorted(set(self.milestones)), f"milestones must rise, found {self.milestones}")
        require(0 <= self.factor <= 1, f"factor must lie in [0, 1], found {self.factor}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        # 1e-9 lets a step whose progress is a little below its milestone, as 6 steps of 0.05 are, count as having reached it
        return self.factor ** sum(progress >= point - 1e-9 for point in self.milestones)
