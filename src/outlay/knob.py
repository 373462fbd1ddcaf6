"""Knob: any quantity that changes during a run, read each step from a schedule or a controller."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from outlay.controllers.base import Controller
from outlay.schedules import Constant, Schedule


@dataclass(frozen=True)
class Knob:
    """A value that follows the budget: value(p) = peak * schedule(p).

    Args:
        peak: what the schedule's multiplier is applied to, in the knob's own unit; finite.
        schedule: a schedule or a controller.
    """

    peak: float = 1.0
    schedule: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        if not math.isfinite(self.peak):
            raise ValueError(f"peak must be finite, found {self.peak}")

    @staticmethod
    def from_plain(value: Any) -> Any:
        """Let a recipe write a constant knob as a plain number."""
        return {"peak": value} if isinstance(value, int | float) and not isinstance(value, bool) else value

    def value(self, progress: float) -> float:
        """Return the knob's value at ``progress`` in [0, 1]."""
        return self.peak * self.schedule.value(progress)

    def controllers(self) -> list[Controller]:
        """Return the controllers inside the schedule, outermost first, however deep they are wrapped."""
        return list(_controllers(self.schedule))


def _controllers(part: Any) -> Iterator[Controller]:
    if isinstance(part, Controller):
        yield part
    if dataclasses.is_dataclass(part):
        for entry in dataclasses.fields(part):
            yield from _controllers(getattr(part, entry.name))
    elif isinstance(part, tuple | list):
        for inner in part:
            yield from _controllers(inner)
