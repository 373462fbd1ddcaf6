"""Target entropy: a bonus that is paid while the policy's entropy is below a target, and grows as long as it is."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from outlay.catalog import Paper
from outlay.record import Record
from outlay.schedules.base import require


@dataclass
class _State:
    level: float
    paid: bool


@dataclass
class TargetEntropy:
    """After every record that holds the metric: level <- level + 1 where entropy <= target, max(0, level - 1) elsewhere; m = level where the last
    entropy was at or below the target, 0 elsewhere.

    For the knob ``entropy``, whose peak is the step of the coefficient: coefficient = peak * m. The paper's step is 0.005, its target 0.2 nats a token.

    Args:
        target: wanted entropy in nats a token, > 0.
        start: level at first, >= 0; paid from the first step on if > 0.
        limit: highest level, >= 1.
        metric: what is steered.
    """

    title: ClassVar[str] = "Target entropy"
    paper: ClassVar[Paper | None] = Paper("2505.22312", "Skywork Open Reasoner 1 Technical Report", 2025)

    target: float = 0.2
    start: float = 0.0
    limit: float = 1000.0
    metric: str = "entropy"
    _state: _State = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.target > 0, f"target must be > 0, found {self.target}")
        require(0 <= self.start <= self.limit, f"start must lie in [0, limit], found {self.start}")
        require(1 <= self.limit < math.inf, f"limit must be finite and >= 1, found {self.limit}")
        self._state = _State(float(self.start), True)

    def value(self, progress: float) -> float:
        """Return the multiplier reached so far; progress does not enter."""
        return self._state.level if self._state.paid else 0.0

    def observe(self, record: Record) -> None:
        """Raise the level when the entropy is too low, lower it when it is not."""
        seen = record.quantity(self.metric)
        if seen is None or not math.isfinite(seen):
            return
        state, low = self._state, seen <= self.target
        state.level = min(state.level + 1, self.limit) if low else max(state.level - 1, 0.0)
        state.paid = low

    def state_dict(self) -> dict[str, Any]:
        """Return the level, and whether it is paid."""
        return asdict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state returned by ``state_dict``."""
        self._state = _State(**state)
