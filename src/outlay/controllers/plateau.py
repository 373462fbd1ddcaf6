"""Reduce on plateau: lower the knob when a measured quantity stops improving."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from outlay.catalog import Paper
from outlay.record import Record
from outlay.schedules.base import require


@dataclass
class _State:
    multiplier: float = 1.0
    best: float = math.inf
    waited: int = 0
    resting: int = 0


@dataclass
class Plateau:
    """Multiply by ``factor`` when the watched quantity has not improved in more than ``patience`` observations.

    An observation improves when x < best (1 - threshold) for mode "min" (x > best (1 + threshold) for "max"; both as for positive x,
    relative as in torch's ReduceLROnPlateau). After a reduction the next ``cooldown`` observations are not counted against patience.
    m = max(minimum, factor^k) after k reductions.

    Args:
        metric: what to watch: ``loss``, ``gradient_norm`` or the name of a metric; records that do not hold it as a finite
            number are passed over.
        mode: whether small or large is good.
        factor: multiplier of a reduction, in (0, 1).
        patience: observations without improvement that are borne, >= 0.
        threshold: relative improvement that counts, >= 0.
        cooldown: observations after a reduction during which none is counted, >= 0.
        minimum: smallest multiplier, in [0, 1].
    """

    title: ClassVar[str] = "Reduce on plateau"
    paper: ClassVar[Paper | None] = None

    metric: str = "loss"
    mode: Literal["min", "max"] = "min"
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    cooldown: int = 0
    minimum: float = 0.0
    _state: _State = field(default_factory=_State, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.mode in ("min", "max"), f"mode must be min or max, found {self.mode!r}")
        require(0 < self.factor < 1, f"factor must lie in (0, 1), found {self.factor}")
        require(self.patience >= 0, f"patience must be >= 0, found {self.patience}")
        require(self.threshold >= 0, f"threshold must be >= 0, found {self.threshold}")
        require(self.cooldown >= 0, f"cooldown must be >= 0, found {self.cooldown}")
        require(0 <= self.minimum <= 1, f"minimum must lie in [0, 1], found {self.minimum}")

    def value(self, progress: float) -> float:
        """Return the multiplier reached so far; progress does not enter."""
        return self._state.multiplier

    def observe(self, record: Record) -> None:
        """Count an observation of the watched quantity and reduce when patience is over."""
        seen = record.quantity(self.metric)
        if seen is None or not math.isfinite(seen):
            return
        state = self._state
        score = seen if self.mode == "min" else -seen
        improved = score < state.best - self.threshold * abs(state.best) if math.isfinite(state.best) else True
        if improved:
            state.best, state.waited = score, 0
        else:
            state.waited += 1
        if state.resting > 0:
            state.resting, state.waited = state.resting - 1, 0
        if state.waited > self.patience:
            state.multiplier = max(self.minimum, state.multiplier * self.factor)
            state.resting, state.waited = self.cooldown, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values (an infinite best as None, which JSON can hold)."""
        state = asdict(self._state)
        return state | {"best": state["best"] if math.isfinite(state["best"]) else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state returned by ``state_dict``."""
        self._state = _State(**(state | {"best": math.inf if state["best"] is None else state["best"]}))
