"""Sampling rate: how often a profile is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import Schedule, require
from outlay.schedules.rex import Rex


@dataclass(frozen=True)
class Sampled:
    """Read a profile only at given points of the budget and hold the value between them.

    m(p) = profile(q), q the largest sampling point <= p. Points are k / times, or those listed in ``at`` (and always 0).

    Args:
        profile: the schedule that is sampled.
        times: how many equal pieces the budget is cut into, >= 1; not used when ``at`` is given.
        at: sampling points in (0, 1), rising; for example (0.5, 0.75).
    """

    title: ClassVar[str] = "Sampling rate of a profile"
    paper: ClassVar[Paper | None] = Paper("2107.04197", "REX: Revisiting Budgeted Training with an Improved Schedule", 2021)

    profile: Schedule = field(default_factory=Rex)
    times: int = 10
    at: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require(self.times >= 1, f"times must be >= 1, found {self.times}")
        require(all(0 < point < 1 for point in self.at), f"every point of at must lie in (0, 1), found {self.at}")
        require(list(self.at) == sorted(set(self.at)), f"the points of at must rise, found {self.at}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        if self.at:
            return self.profile.value(max((point for point in self.at if point <= progress), default=0.0))
        # 1e-9 lets 0.3 * 10 count as 3; progress 1 belongs to the last piece
        piece = min(int(progress * self.times + 1e-9), self.times - 1)
        return self.profile.value(piece / self.times)
