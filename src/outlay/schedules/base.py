"""The schedule seam: a knob's multiplier as a pure function of how much of the budget has been spent."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Schedule(Protocol):
    """A pure function of progress. It keeps nothing, so nothing of it is saved; the same curve serves seconds, tokens or steps.

    Invariants, held by ``outlay.testing.check_schedule``: finite on [0, 1]; the same progress gives the same value.
    """

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1] of the stage's budget."""
        ...


def require(condition: bool, message: str) -> None:
    """Refuse a hyper-parameter: raise ``ValueError(message)`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)
