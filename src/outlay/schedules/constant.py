"""Constant: a knob that does not change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper


@dataclass(frozen=True)
class Constant:
    """A knob that does not change: m(p) = level.

    Args:
        level: the multiplier, any finite number.
    """

    title: ClassVar[str] = "Constant"
    paper: ClassVar[Paper | None] = None

    level: float = 1.0

    def value(self, progress: float) -> float:
        """Return ``level`` whatever the progress."""
        return self.level
