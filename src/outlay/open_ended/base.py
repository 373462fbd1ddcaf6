"""The open-ended seam: a knob's multiplier as a pure function of the amount that has been spent, valid without a total."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class OpenSchedule(Protocol):
    """A pure function of the amount spent so far, in whatever unit its fields are given in. It knows no total.

    Invariants, held by ``outlay.testing.check_open_schedule``: in [0, 1], relative to the knob's peak, at every amount >= 0 however large;
    the same amount gives the same value; nothing is kept. Since no total enters, runs of different lengths share their beginning exactly.
    ``outlay.controllers.OpenEnded`` makes a knob of it.
    """

    def at(self, amount: float) -> float:
        """Return the multiplier after ``amount`` >= 0 has been spent."""
        ...
