"""Annealed branches: one trunk, and a decayed checkpoint for every budget on its way."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from outlay.branch import Branch, Landing
from outlay.catalog import Paper
from outlay.record import Record
from outlay.schedules.base import Schedule, require
from outlay.schedules.constant import Constant
from outlay.schedules.warmup_stable_decay import TAILS, Shape

#: share of the tail in which the exponential halves
HALF_LIFE = 0.1
#: what rounding may take from a position
_ROUNDING = 1e-9


@dataclass
class _State:
    next: int = 0
    position: float = 0.0
    progress: float = 0.0
    waiting: bool = False


@dataclass(frozen=True)
class Tail:
    """A level that decays: m(q) = level f(q), f one of the tails of ``WarmupStableDecay`` on the branch's own progress q."""

    level: float
    shape: Shape
    floor: float

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1] of the branch."""
        return self.level * TAILS[self.shape](min(1.0, progress), self.floor, HALF_LIFE)


@dataclass
class AnnealedBranches:
    """Train one trunk; at (1 - decay) T_k leave it for a branch that decays over decay T_k, the checkpoint of budget T_k, and go on undecayed.

    The trunk has the length T; T_k = at_k T, and the last budget is T itself, whose decay is the trunk's own end. All of it comes out of the stage's
    budget B = T + sum_k decay T_k, so that T = B / (1 + decay sum_k at_k). At the trunk's position t in [0, 1]:
    m = trunk(t) f((t - 1 + decay) / decay), f = 1 before the tail; on a branch m = trunk(t at the fork) f(q). Before its own tail the trunk is bit
    by bit what it would be without branches: it reads the same examples again that the branches read.

    Evaluating and saving a branch come out of the budget as well; what they used is taken evenly from the rest of the trunk. A branch is the account
    ``anneal``; its end is evaluated, and written to ``branches/at-<share>/``. One that the budget does not bear is left out.

    This is warm-up, stable, decay (arXiv 2404.06395) with intermediate budgets, which the paper below compares with going on from the decayed weights.
    Its trunk is constant; any schedule is accepted here and reads the trunk's position. That a branch reads the data which the trunk then reads
    again is our choice.

    Args:
        at: budgets on the way as shares of the trunk's length, rising, each in (0, 1); a quarter and a half as in the
            paper's main comparison.
        trunk: the schedule that is left and gone back to; a controller is put back as well.
        decay: share of each budget in its decay, in (0, 1).
        shape: form of the decay: those of ``WarmupStableDecay``.
        floor: what is left of the trunk's level at the end of a decay, in [0, 1]; > 0 for ``inverse_linear``.
        evaluate: whether a branch's end is put to the recipe's exams.
        save: whether a branch's end is written as weights.
    """

    title: ClassVar[str] = "Annealed branches"
    paper: ClassVar[Paper | None] = Paper(
        "2410.05192", "Understanding Warmup-Stable-Decay Learning Rates: A River Valley Loss Landscape Perspective", 2024
    )

    at: tuple[float, ...] = (0.25, 0.5)
    trunk: Schedule = field(default_factory=Constant)
    decay: float = 0.1
    shape: Shape = "inverse_linear"
    floor: float = 0.1
    evaluate: bool = True
    save: bool = True
    _state: _State = field(default_factory=_State, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.at = tuple(self.at)
        require(len(self.at) > 0, "at must name one share of the trunk at least, found none")
        require(all(0 < share < 1 for share in self.at), f"at must lie in (0, 1) throughout, found {list(self.at)}")
        require(sorted(set(self.at)) == list(self.at), f"at must rise, found {list(self.at)}")
        require(0 < self.decay < 1, f"decay must lie in (0, 1), found {self.decay}")
        require(self.shape in TAILS, f"shape must be one of {', '.join(TAILS)}, found {self.shape!r}")
        require(0 <= self.floor <= 1, f"floor must lie in [0, 1], found {self.floor}")
        require(self.floor > 0 or self.shape != "inverse_linear", f"the tail inverse_linear needs a floor > 0, found {self.floor}")

    def position(self, progress: float) -> float:
        """Return how far the trunk has come, in [0, 1], when ``progress`` of the stage's budget has been spent."""
        state = self._state
        return state.position if state.waiting else min(1.0, state.position + (progress - state.progress) * self._rate())

    def _rate(self) -> float:
        """Trunk lengths a budget, from the last time that the trunk was gone back to: what is left pays for what is to come."""
        state = self._state
        to_come = 1.0 - state.position + self.decay * sum(self.at[state.next :])
        return to_come / (1.0 - state.progress) if state.progress < 1 else 0.0

    def value(self, progress: float) -> float:
        """Return the trunk's multiplier, decayed at its end."""
        position = self.position(progress)
        level, into_tail = self.trunk.value(position), (position - (1.0 - self.decay)) / self.decay
        return level if into_tail <= 0 else Tail(level, self.shape, self.floor).value(into_tail)

    def next_branch(self, progress: float) -> Branch | None:
        """Return the branch of the next budget once its decay is due."""
        state, position = self._state, self.position(progress)
        if state.next >= len(self.at) or state.waiting or position < (1.0 - self.decay) * self.at[state.next] - _ROUNDING:
            return None
        budget = self.at[state.next]
        share = self.decay * budget / self._rate() if self._rate() > 0 else 1.0
        if not 0 < share < 1:
            return None
        tail = Tail(self.trunk.value(position), self.shape, self.floor)
        name = f"at-{budget:g}"
        return Branch(name, tail, share=share, account="anneal", evaluate=self.evaluate, save=self.save, watch=False)

    def landed(self, branch: Branch, landing: Landing) -> None:
        """Go on from the position that was left; how much of the budget is left for it, the next step tells."""
        state = self._state
        state.position, state.progress = self.position(landing.began), landing.began
        state.next += 1
        state.waiting = landing.end != "refused"

    def observe(self, record: Record) -> None:
        """Note at which progress the trunk was gone back to."""
        if self._state.waiting and record.kind == "step":
            self._state.progress, self._state.waiting = record.progress, False

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return asdict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state returned by ``state_dict``."""
        self._state = _State(**state)
