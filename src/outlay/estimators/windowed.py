"""Windowed: the mean of an arm's latest answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.catalog import Paper
from outlay.context import Context
from outlay.estimators.base import Reads
from outlay.schedules.base import require


@dataclass(frozen=True)
class Windowed:
    """Rate = mean success of the latest visit if it had at least ``window`` answers, else of the latest ``window`` answers, walking back
    through earlier visits. Unknown until ``least`` answers have been judged. A visit is all that one update brings of an arm: the paper's
    arms are single questions, and an arm of many questions is visited by all of them at once.

    Args:
        window: answers that are enough, > 0.
        least: answers, of all visits together, below which an arm counts as unknown, > 0.
    """

    title: ClassVar[str] = "Window over the latest answers"
    paper: ClassVar[Paper | None] = Paper("2509.25849", "Knapsack RL: Unlocking Exploration of LLMs via Optimizing Budget Allocation", 2025)
    reads: ClassVar[Reads] = "nothing"

    window: int = 16
    least: int = 8

    def __post_init__(self) -> None:
        require(self.window > 0, f"window must be > 0, found {self.window}")
        require(self.least > 0, f"least must be > 0, found {self.least}")

    def open(self, arms: Sequence[Arm], context: Context) -> WindowedEstimates:
        """Return estimates that know nothing yet."""
        return WindowedEstimates(self, len(arms))


@dataclass
class WindowedEstimates:
    """The latest answers of every arm."""

    spec: Windowed
    arms: int
    _latest: dict[int, list[float]] = field(default_factory=dict)
    _judged: dict[int, int] = field(default_factory=dict)
    _rates: FloatArray = field(init=False)  # follows from the two above; a pool may have many more arms than a batch has questions

    def __post_init__(self) -> None:
        self._rates = np.full(self.arms, np.nan)

    def rates(self) -> FloatArray:
        """Return the mean over each arm's window."""
        return self._rates.copy()

    def seen(self) -> FloatArray:
        """Return how many answers lie in each arm's window."""
        found = np.zeros(self.arms)
        for arm, latest in self._latest.items():
            found[arm] = len(latest)
        return found

    def of(self, arms: IntArray, features: FloatArray | None) -> FloatArray:
        """Return the rate of each question's arm."""
        return self._rates[arms]

    def update(self, outcomes: Sequence[Outcome]) -> None:
        """Put each arm's answers at the end of its window."""
        visits: dict[int, list[float]] = {}
        for one in outcomes:
            if one.rewards:
                visits.setdefault(one.arm, []).extend(one.successes)
        for arm, visit in visits.items():
            whole = visit if len(visit) >= self.spec.window else [*self._latest.get(arm, []), *visit][-self.spec.window :]
            self._latest[arm] = whole
            self._judged[arm] = self._judged.get(arm, 0) + len(visit)
            self._rate(arm)

    def _rate(self, arm: int) -> None:
        if self._judged[arm] >= self.spec.least:
            self._rates[arm] = sum(self._latest[arm]) / len(self._latest[arm])

    def state_dict(self) -> dict[str, Any]:
        """Return the windows and counts."""
        return {
            "latest": [[arm, list(latest)] for arm, latest in sorted(self._latest.items())],
            "judged": [[arm, count] for arm, count in sorted(self._judged.items())],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up saved windows."""
        self._latest = {int(arm): [float(value) for value in latest] for arm, latest in state["latest"]}
        self._judged = {int(arm): int(count) for arm, count in state["judged"]}
        self._rates = np.full(self.arms, np.nan)
        for arm in self._latest:
            self._rate(arm)


def lately(arms: Sequence[Arm]) -> WindowedEstimates:
    """Return the mean over each arm's latest 16 answers, known from the first on: what estimators of single questions say of whole arms."""
    return WindowedEstimates(Windowed(least=1), len(arms))
