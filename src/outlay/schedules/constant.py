"""Constant: a knob that does not change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class Constant:
    """A knob that does not change: m(p) = level.

    Args:
        level: the multiplier, any finite number.
    """

    title: ClassVar[str] = "Constant"
    paper: ClassVar[Paper | None] = None

    level: float = 1.0

    def __post_init__(self) -> None:
        require(math.isfinite(self.level), f"level must be finite, found {self.level}")

    def value(self, progress: float) -> float:
        """Return ``level`` whatever the progress."""
        return self.level
