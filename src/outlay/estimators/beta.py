"""Beta: the mean of a Beta posterior for every arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome, plain
from outlay.catalog import Paper
from outlay.context import Context
from outlay.estimators.base import Reads
from outlay.schedules.base import require


@dataclass(frozen=True)
class Beta:
    """Rate = (a + 1) / (t + 2) with a successes among t answers: the mean of the posterior under a uniform prior, 1/2 before any answer, so
    that no rate is ever unknown and none is quite 0 or 1.

    The policy changes, so old answers may fade: an update first multiplies a and t of all arms by ``decay``, whichever it brings answers of.
    An arm that is no longer asked thus goes back to 1/2. The paper forgets nothing, which is decay = 1.

    Args:
        decay: what is left of earlier answers after an update, in (0, 1].
        threshold: an answer is a success when its reward is greater, in [0, 1).
    """

    title: ClassVar[str] = "Beta posterior"
    paper: ClassVar[Paper | None] = Paper(
        "2510.01037", "CurES: From Gradient Analysis to Efficient Curriculum Learning for Reasoning LLMs", 2025
    )
    reads: ClassVar[Reads] = "nothing"

    decay: float = 1.0
    threshold: float = 0.5

    def __post_init__(self) -> None:
        require(0 < self.decay <= 1, f"decay must be in (0, 1], found {self.decay}")
        require(0 <= self.threshold < 1, f"threshold must be in [0, 1), found {self.threshold}")

    def open(self, arms: Sequence[Arm], context: Context) -> BetaEstimates:
        """Return estimates that know nothing but the prior."""
        return BetaEstimates(self, len(arms))


@dataclass
class BetaEstimates:
    """Successes and answers of every arm."""

    spec: Beta
    arms: int
    _right: FloatArray = field(init=False)
    _tried: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self._right, self._tried = np.zeros(self.arms), np.zeros(self.arms)

    def rates(self) -> FloatArray:
        """Return each arm's posterior mean."""
        return (self._right + 1) / (self._tried + 2)

    def seen(self) -> FloatArray:
        """Return what is left of each arm's answers."""
        return self._tried.copy()

    def of(self, arms: IntArray, features: FloatArray | None) -> FloatArray:
        """Return the rate of each question's arm."""
        return (self._right[arms] + 1) / (self._tried[arms] + 2)

    def update(self, outcomes: Sequence[Outcome]) -> None:
        """Let old answers fade, then count the new ones."""
        judged = [one for one in outcomes if one.rewards]
        if not judged:
            return
        self._right *= self.spec.decay
        self._tried *= self.spec.decay
        for one in judged:
            self._right[one.arm] += sum(reward > self.spec.threshold for reward in one.rewards)
            self._tried[one.arm] += len(one.rewards)

    def state_dict(self) -> dict[str, Any]:
        """Return both counts."""
        return {"right": plain(self._right), "tried": plain(self._tried)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up saved counts."""
        self._right = np.array(state["right"], np.float64)
        self._tried = np.array(state["tried"], np.float64)
