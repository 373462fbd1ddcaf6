"""SEC: a bandit over categories that follows the size of the advantages."""

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
class Sec:
    """Q(c) <- alpha r(c) + (1 - alpha) Q(c) for the categories of a batch, and p(c) = softmax(Q / tau).

    r(c) is the mean |advantage| over all answers to the category's questions in the batch, 0 for groups of one value: what is mastered or out
    of reach fades by itself. Q starts at 0, so that all categories start alike; r >= 0 keeps every share above exp(-max Q / tau) / arms.
    The paper tunes alpha and tau for each task; the defaults are the values that are told of it, not checked against it.

    Args:
        alpha: weight of the newest batch, in (0, 1].
        tau: temperature, > 0; large makes all shares equal.
    """

    title: ClassVar[str] = "SEC, self-evolving curriculum"
    paper: ClassVar[Paper | None] = Paper("2505.14970", "Self-Evolving Curriculum for LLM Reasoning", 2025)

    alpha: float = 0.5
    tau: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.alpha <= 1, f"alpha must be in (0, 1], found {self.alpha}")
        require(self.tau > 0, f"tau must be > 0, found {self.tau}")

    def open(self, arms: Sequence[Arm], context: Context) -> SecLessons:
        """Return the lessons."""
        return SecLessons(self, len(arms))


@dataclass
class SecLessons:
    """The value of every arm."""

    spec: Sec
    arms: int
    values: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.values = [0.0] * self.arms

    def shares(self, asking: Asking) -> FloatArray:
        """Return softmax(Q / tau)."""
        return softmax(np.array(self.values), self.spec.tau)

    def choose(self, asking: Asking) -> IntArray:
        """Return an independent draw for every question."""
        return drawn(self.shares(asking), asking)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        """Move the values of the arms that were answered."""
        total, answers = np.zeros(self.arms), np.zeros(self.arms)
        for one in outcomes:
            if one.rewards:
                total[one.arm] += one.magnitude * len(one.rewards)
                answers[one.arm] += len(one.rewards)
        for arm in np.flatnonzero(answers).tolist():
            self.values[arm] = self.spec.alpha * float(total[arm] / answers[arm]) + (1 - self.spec.alpha) * self.values[arm]

    def state_dict(self) -> dict[str, Any]:
        """Return the values."""
        return {"values": list(self.values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up saved values."""
        self.values = [float(value) for value in state["values"]]
