"""Open-ended: a knob that follows the amount spent, and a tail for whoever knows the end."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, get_args

from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.open_ended.base import OpenSchedule
from outlay.open_ended.hold import Hold
from outlay.record import Record
from outlay.schedules.base import require
from outlay.schedules.warmup_stable_decay import Shape, WarmupStableDecay

Counted = Literal["steps", "examples", "tokens", "flops", "rollouts", "new_tokens", "labels"]
Tail = Literal[Shape, "geometric"]


@dataclass
class _State:
    amount: float = 0.0
    tail_from: float | None = None


@dataclass
class OpenEnded:
    """Read an open schedule at the amount spent so far; over the last ``decay`` of the budget, anneal.

    With n = before + what the steps so far were charged: m = schedule.at(n) for progress p < 1 - decay. The tail starts from the level
    L = schedule.at(n at its start), which then stands still: with x = (p - 1 + decay) / decay, m = L t(x, floor / L), where t is a tail of
    ``WarmupStableDecay``, such as t(x, r) = r + (1 - r) (1 - x) for ``linear``, or the infinite schedule's annealing, t(x, r) = r^x, for
    ``geometric``. A level that is not above the floor is kept.

    Before the tail the total does not enter, so a longer run begins exactly as a shorter one; and a run that goes on with a larger budget
    from a checkpoint taken before the tail is back at schedule.at(n) at once, without warming up again. A knob is read before its
    step is charged: the k-th step sees what the k - 1 steps before it were charged, and the first one schedule.at(before), as with torch's
    schedulers. Evaluations are not counted; skipped steps are.

    Args:
        schedule: the open schedule; its amounts are in ``unit``.
        unit: what is counted of each step's charges, over all processes. Seconds are not among them.
        decay: share of the budget in the tail, in [0, 1); 0 has none, whatever the budget.
        shape: form of the tail.
        floor: multiplier at the end of the tail, in [0, 1]; geometric and inverse_linear need one > 0. It is relative to the knob's peak.
        before: amount that had been spent before this run, in ``unit``, >= 0, when a trained model goes on learning.

    Raises:
        InputError: from ``observe``, at the first step whose charges do not hold ``unit``.
    """

    title: ClassVar[str] = "Open-ended schedule"
    paper: ClassVar[Paper | None] = Paper(
        "2503.02844", "Beyond Cosine Decay: On the effectiveness of Infinite Learning Rate Schedule for Continual Pre-training", 2025
    )

    schedule: OpenSchedule = field(default_factory=Hold)
    unit: Counted = "steps"
    decay: float = 0.0
    shape: Tail = "one_minus_sqrt"
    floor: float = 0.0
    before: float = 0.0
    _state: _State = field(default_factory=_State, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.unit in get_args(Counted), f"unit must be one of {', '.join(get_args(Counted))}, found {self.unit!r}")
        require(0 <= self.decay < 1, f"decay must lie in [0, 1), found {self.decay}")
        require(self.shape in get_args(Tail), f"shape must be one of {', '.join(get_args(Tail))}, found {self.shape!r}")
        require(0 <= self.floor <= 1, f"floor must lie in [0, 1], found {self.floor}")
        needy = self.shape in ("geometric", "inverse_linear")
        require(self.floor > 0 or not needy, f"the tail {self.shape} needs a floor > 0, found {self.floor}")
        require(0 <= self.before < math.inf, f"before must be finite and >= 0, found {self.before}")

    @property
    def counts(self) -> str:
        """The unit that is counted."""
        return self.unit

    def value(self, progress: float) -> float:
        """Return the multiplier for the amount spent so far, annealed where ``progress`` is in the tail."""
        state = self._state
        if not self._in_tail(progress):
            return self.schedule.at(self.before + state.amount)
        start = state.amount if state.tail_from is None else state.tail_from
        level = self.schedule.at(self.before + start)
        x = min(1.0, (progress - (1.0 - self.decay)) / self.decay)
        if self.floor >= level:
            return level
        lowest = self.floor / level
        return level * (math.pow(lowest, x) if self.shape == "geometric" else WarmupStableDecay(0.0, 1.0, self.shape, lowest).value(x))

    def observe(self, record: Record) -> None:
        """Count what a step was charged, and note where the tail began."""
        if record.kind != "step":
            return
        state = self._state
        if not self._in_tail(record.progress):
            state.tail_from = None  # also when a larger budget has put the end off
        elif state.tail_from is None:
            state.tail_from = state.amount
        state.amount += self._charged(record)

    def _in_tail(self, progress: float) -> bool:
        return self.decay > 0 and progress >= 1.0 - self.decay

    def _charged(self, record: Record) -> float:
        if self.unit in record.charges:
            return record.charges[self.unit]
        if self.unit == "steps":
            return 1.0
        found = ", ".join(sorted(record.charges)) or "nothing"
        raise InputError(f"an open-ended schedule in {self.unit} needs steps that are charged {self.unit}; these are charged {found}")

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return asdict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state returned by ``state_dict``."""
        self._state = _State(**state)
