"""DUMP: upper confidence bounds over distributions of questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.catalog import Paper
from outlay.context import Context
from outlay.schedules.base import require
from outlay.teachers.base import Asking, drawn, softmax


@dataclass(frozen=True)
class Dump:
    """p(d) = softmax(U / tau) with U(d) = L(d) + weight sqrt(2 ln(n + 1) / (n(d) + 1)).

    L(d) is the mean |advantage| of the distribution's latest ``window`` judged answers, 0 without any; n(d) counts its judged answers and n all
    of them. This is the paper's rule, at every batch; its released trainer updates at evaluations only, and by the mean reward, which favours
    what has been solved.

    Args:
        tau: temperature, > 0.
        window: latest answers of a distribution that count, > 0.
        weight: of the term that explores, >= 0.
    """

    title: ClassVar[str] = "DUMP, upper confidence bounds over distributions"
    paper: ClassVar[Paper | None] = Paper(
        "2504.09710", "DUMP: Automated Distribution-Level Curriculum Learning for RL-based LLM Post-training", 2025
    )

    tau: float = 0.1
    window: int = 300
    weight: float = 1.0

    def __post_init__(self) -> None:
        require(self.tau > 0, f"tau must be > 0, found {self.tau}")
        require(self.window > 0, f"window must be > 0, found {self.window}")
        require(self.weight >= 0, f"weight must be >= 0, found {self.weight}")

    def open(self, arms: Sequence[Arm], context: Context) -> DumpLessons:
        """Return the lessons."""
        return DumpLessons(self, len(arms))


@dataclass
class DumpLessons:
    """The latest |advantages| of every arm, and how many there have been."""

    spec: Dump
    arms: int
    _latest: dict[int, list[float]] = field(default_factory=dict)
    _counts: dict[int, int] = field(default_factory=dict)

    def bounds(self) -> FloatArray:
        """Return U of every arm, (arms,)."""
        learning, counts = np.zeros(self.arms), np.zeros(self.arms)
        for arm, latest in self._latest.items():
            learning[arm], counts[arm] = sum(latest) / len(latest), self._counts[arm]
        return np.asarray(learning + self.spec.weight * np.sqrt(2 * np.log(counts.sum() + 1) / (counts + 1)), np.float64)

    def shares(self, asking: Asking) -> FloatArray:
        """Return softmax(U / tau)."""
        return softmax(self.bounds(), self.spec.tau)

    def choose(self, asking: Asking) -> IntArray:
        """Return an independent draw for every question."""
        return drawn(self.shares(asking), asking)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        """Append the |advantage| of every judged answer to its arm's window."""
        for one in outcomes:
            if one.rewards:
                found = sizes(one)
                self._latest[one.arm] = [*self._latest.get(one.arm, []), *found][-self.spec.window :]
                self._counts[one.arm] = self._counts.get(one.arm, 0) + len(found)

    def state_dict(self) -> dict[str, Any]:
        """Return the windows and counts."""
        return {"latest": sorted(self._latest.items()), "counts": sorted(self._counts.items())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up saved windows."""
        self._latest = {int(arm): [float(value) for value in latest] for arm, latest in state["latest"]}
        self._counts = {int(arm): int(count) for arm, count in state["counts"]}


def sizes(outcome: Outcome) -> list[float]:
    """Return |advantage| of every judged answer: the objective's where known, else |r - mean| / std, 0 where all rewards are equal."""
    if outcome.advantages:
        return [abs(float(value)) for value in outcome.advantages]
    if outcome.magnitude == 0:
        return [0.0] * len(outcome.rewards)
    rewards = np.asarray(outcome.rewards, np.float64)
    return [float(value) for value in np.abs(rewards - rewards.mean()) / rewards.std()]
