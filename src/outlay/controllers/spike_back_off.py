"""Spike back-off: shrink a knob after a loss spike or a withheld update, and let it come back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import Any, ClassVar

from outlay.catalog import Paper
from outlay.record import Record
from outlay.schedules.base import require

#: standard deviations in a median absolute deviation of the normal distribution
NORMAL = 1.4826


@dataclass
class _State:
    window: list[float] = field(default_factory=list)
    owed: int = 0


@dataclass
class SpikeBackOff:
    """Multiply by ``factor`` when a step's loss is a spike or its update was withheld; recover geometrically over ``recover`` steps.

    A loss is a spike when loss > median + deviations s over the last ``window`` losses, s = max(1.4826 MAD, slack |median|) with MAD the
    median absolute deviation from the median: robust stand-ins for mean and standard deviation, so that earlier spikes do not hide later
    ones. The loss joins the window afterwards, spike or not: a level that stays is normal after half a window.
    Each spike adds ``recover`` steps to what is owed (at most ``most`` spikes' worth), each other step pays one back:
    m = factor^(owed / recover). Recovery from one spike is thus exact, m = 1 after ``recover`` steps.

    Args:
        metric: what is watched: ``loss``, ``gradient_norm`` or the name of a step's metric; steps without it pay back all the same.
        factor: multiplier of a spike, in (0, 1).
        recover: steps of recovery for a spike, >= 1.
        deviations: standard deviations above the median that make a spike, > 0.
        window: values that are remembered, >= 2.
        least: values that must be known before any is called a spike, in [2, window].
        slack: smallest standard deviation, relative to the median, >= 0; without it any rise from a flat loss would be a spike.
        most: spikes that add up, >= 1; m never falls below factor^most.
    """

    title: ClassVar[str] = "Back off after loss spikes"
    paper: ClassVar[Paper | None] = None

    metric: str = "loss"
    factor: float = 0.5
    recover: int = 100
    deviations: float = 6.0
    window: int = 50
    least: int = 10
    slack: float = 0.01
    most: int = 4
    _state: _State = field(default_factory=_State, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(0 < self.factor < 1, f"factor must lie in (0, 1), found {self.factor}")
        require(self.recover >= 1, f"recover must be >= 1, found {self.recover}")
        require(0 < self.deviations < math.inf, f"deviations must be finite and > 0, found {self.deviations}")
        require(self.window >= 2, f"window must be >= 2, found {self.window}")
        require(2 <= self.least <= self.window, f"least must lie in [2, window = {self.window}], found {self.least}")
        require(0 <= self.slack < math.inf, f"slack must be finite and >= 0, found {self.slack}")
        require(self.most >= 1, f"most must be >= 1, found {self.most}")

    def value(self, progress: float) -> float:
        """Return the multiplier reached so far; progress does not enter."""
        return math.pow(self.factor, self._state.owed / self.recover)

    def observe(self, record: Record) -> None:
        """Judge a step against the window, back off or recover, and remember it."""
        if record.kind != "step":
            return
        state, seen = self._state, record.quantity(self.metric)
        judged = seen if seen is not None and math.isfinite(seen) else None
        if record.outcome == "skipped" or (judged is not None and self._spike(judged)):
            state.owed = min(state.owed + self.recover, self.most * self.recover)
        else:
            state.owed = max(0, state.owed - 1)
        if judged is not None:
            state.window = [*state.window, judged][-self.window :]

    def _spike(self, seen: float) -> bool:
        known = self._state.window
        if len(known) < self.least:
            return False
        middle = median(known)
        spread = max(NORMAL * median(abs(x - middle) for x in known), self.slack * abs(middle))
        return seen > middle + self.deviations * spread

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {"window": list(self._state.window), "owed": self._state.owed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state returned by ``state_dict``."""
        self._state = _State(list(state["window"]), state["owed"])
