"""The teacher seam: who learns what next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.context import Context
from outlay.errors import InputError


@dataclass(frozen=True)
class Asking:
    """What a teacher may look at when it chooses.

    Args:
        count: questions or examples wanted, > 0.
        progress: share of the stage's budget that has been spent, in [0, 1].
        rates: estimated success rate of every arm, (arms,); nan where there is no ground for one.
        seen: judged answers that each rests on, (arms,).
        rng: random stream of this choice alone.
    """

    count: int
    progress: float
    rates: FloatArray
    seen: FloatArray
    rng: np.random.Generator


@runtime_checkable
class Lessons(Protocol):
    """A teacher that follows a run. Nothing but ``update`` and ``load_state_dict`` changes it: equal askings are answered equally."""

    def shares(self, asking: Asking) -> FloatArray:
        """Return the share of the next questions that each arm is expected to get: (arms,), >= 0, summing to 1."""
        ...

    def choose(self, asking: Asking) -> IntArray:
        """Return the arms of the next ``asking.count`` questions, in the order in which they are asked, (count,)."""
        ...

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        """Learn from a batch.

        Args:
            chosen: the arm of every question or example that has been used, (used,).
            outcomes: what came of them; empty for examples that nobody judges. Unjudged questions have outcomes without rewards.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, as plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        ...


@runtime_checkable
class Teacher(Protocol):
    """Describes how what is learnt next is chosen."""

    def open(self, arms: Sequence[Arm], context: Context) -> Lessons:
        """Return lessons over the arms.

        Raises:
            InputError: when the arms lack what this teacher goes by: difficulties, places, an end.
        """
        ...


@runtime_checkable
class Screens(Lessons, Protocol):
    """Lessons that look at more questions than are answered: ``choose`` is asked for ``over`` times as many, and ``screen`` keeps the best."""

    @property
    def over(self) -> int:
        """Candidates for every question that is kept, >= 1."""
        ...

    def screen(self, rates: FloatArray, asking: Asking) -> IntArray:
        """Return which ``asking.count`` candidates to keep, as ascending positions in ``rates``.

        Args:
            rates: estimated success rate of each candidate, (candidates,); nan where there is no ground for one.
            asking: what was asked.
        """
        ...


@runtime_checkable
class Ranks(Lessons, Protocol):
    """Lessons that rank single questions by what the model makes of them before anything is learnt; the passes are charged to the teacher."""

    def ranked(self, scores: FloatArray) -> None:
        """Take up the angle concentration of every arm's question, (arms,), each in [-1, 1]. Called once, before the first choice."""
        ...


@runtime_checkable
class Examined(Lessons, Protocol):
    """Lessons that learn from evaluations: what each arm's held-out loss is."""

    def examined(self, losses: FloatArray, progress: float) -> None:
        """Learn from an evaluation.

        Args:
            losses: held-out loss of every arm, (arms,), smaller is better; for questions 1 - accuracy. nan where it was not measured.
            progress: share of the stage's budget that had been spent, in [0, 1].
        """
        ...


@runtime_checkable
class Sets(Lessons, Protocol):
    """Lessons that draw without replacement, in proportion to weights: how often an arm is expected is then only about right."""

    @property
    def sets(self) -> bool:
        """Whether they do so over these arms."""
        ...


def softmax(scores: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Return exp(scores / temperature), normalised; the largest score is subtracted first."""
    weights = np.exp((scores - scores.max()) / temperature)
    return np.asarray(weights / weights.sum(), np.float64)


def even(arms: int) -> FloatArray:
    """Return the same share for every arm."""
    return np.full(arms, 1 / arms)


def drawn(shares: FloatArray, asking: Asking) -> IntArray:
    """Return ``asking.count`` arms drawn with replacement, each with its share as probability."""
    edges = np.cumsum(shares)
    return np.searchsorted(edges / edges[-1], asking.rng.random(asking.count), side="right").astype(np.int64)


def drawn_without(shares: FloatArray, asking: Asking) -> IntArray:
    """Return ``asking.count`` arms of which none comes twice before all that can be drawn have come, drawn in proportion to their shares.

    Each round orders the arms by exponential clocks of rates ``shares``, which is successive drawing without replacement.
    """
    found: list[IntArray] = []
    left, possible = asking.count, int(np.count_nonzero(shares))
    while left > 0:
        with np.errstate(divide="ignore"):
            clocks = np.where(shares > 0, asking.rng.exponential(size=len(shares)) / shares, np.inf)
        found.append(np.argsort(clocks, kind="stable")[: min(left, possible)])
        left -= len(found[-1])
    return np.concatenate(found).astype(np.int64)


def expected_without(shares: FloatArray, count: int) -> FloatArray:
    """Return about which share of ``count`` arms each is expected to be when ``drawn_without`` draws them, (arms,).

    Every whole round takes all that can be drawn. Of the rest r it takes 1 - exp(-shares t), t such that these sum to r: the time at which
    r clocks are expected to have rung. Exact for equal shares and for many arms; r = 1 is exact, for the first clock rings in proportion.
    """
    possible = shares > 0
    rounds, rest = divmod(count, int(np.count_nonzero(possible)))
    weights = np.where(possible, shares, 0.0) / shares.sum()
    if rest <= 1:
        part = weights * rest
    else:
        low, high = 0.0, 1.0
        while np.sum(-np.expm1(-weights * high)) < rest:
            low, high = high, 2 * high
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if np.sum(-np.expm1(-weights * middle)) < rest else (low, middle)
        part = -np.expm1(-weights * high)
    found = rounds * possible + part
    return np.asarray(found / found.sum(), np.float64)


def difficulties(arms: Sequence[Arm], teacher: str) -> FloatArray:
    """Return every arm's difficulty, (arms,).

    Raises:
        InputError: naming the first arm that has none.
    """
    for arm in arms:
        if arm.difficulty is None:
            raise InputError(f"{teacher} goes by difficulty, but the arm {arm.name!r} has none; use levels, or a column of difficulties")
    return np.array([arm.difficulty for arm in arms], np.float64)


@dataclass
class Stateless:
    """Lessons that remember nothing; a base for those that are pure functions of what they are asked."""

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        """Change nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""
