"""Category average: arms of one category share a running mean."""

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
class CategoryAverage:
    """An exponential average for each category: Q <- alpha r + (1 - alpha) Q, with r the mean success of all answers that an update brings
    of the category; others keep theirs. Arms without a category share one.

    The paper averages absolute advantages this way, to choose categories, and starts at 0. Success starts at the first r: a category that
    was never asked is unknown, not hopeless. With ``window`` the rate is the plain mean of the category's latest answers instead.

    Args:
        alpha: weight of an update's mean, in (0, 1].
        window: answers of a category that are averaged, > 0; None for the exponential average.
    """

    title: ClassVar[str] = "Average per category"
    paper: ClassVar[Paper | None] = Paper("2505.14970", "Self-Evolving Curriculum for LLM Reasoning", 2025)
    reads: ClassVar[Reads] = "nothing"

    alpha: float = 0.5
    window: int | None = None

    def __post_init__(self) -> None:
        require(0 < self.alpha <= 1, f"alpha must be in (0, 1], found {self.alpha}")
        require(self.window is None or self.window > 0, f"window must be > 0 or None, found {self.window}")

    def open(self, arms: Sequence[Arm], context: Context) -> CategoryEstimates:
        """Return estimates that know nothing yet."""
        names = sorted({arm.category for arm in arms})
        places = {name: place for place, name in enumerate(names)}
        return CategoryEstimates(self, np.array([places[arm.category] for arm in arms], np.int64), len(names))


@dataclass
class CategoryEstimates:
    """The average of every category.

    Args:
        spec: what it was opened from.
        category: the category of every arm, (arms,), as a place in the sorted names.
        count: how many categories there are.
    """

    spec: CategoryAverage
    category: IntArray
    count: int
    _rates: FloatArray = field(init=False)
    _seen: FloatArray = field(init=False)
    _latest: list[list[float]] = field(init=False)  # with a window only

    def __post_init__(self) -> None:
        self._rates, self._seen = np.full(self.count, np.nan), np.zeros(self.count)
        self._latest = [[] for _ in range(self.count)]

    def rates(self) -> FloatArray:
        """Return the average of each arm's category."""
        return self._rates[self.category]

    def seen(self) -> FloatArray:
        """Return the answers that each arm's category rests on: those in the window, or n <- new + (1 - alpha) n."""
        return self._seen[self.category]

    def of(self, arms: IntArray, features: FloatArray | None) -> FloatArray:
        """Return the average of each question's category."""
        return self._rates[self.category[arms]]

    def update(self, outcomes: Sequence[Outcome]) -> None:
        """Move the average of every category of which there are answers."""
        brought: dict[int, list[float]] = {}
        for one in outcomes:
            if one.rewards:
                brought.setdefault(int(self.category[one.arm]), []).extend(one.successes)
        for place, successes in brought.items():
            if self.spec.window is not None:
                latest = self._latest[place] = [*self._latest[place], *successes][-self.spec.window :]
                self._rates[place], self._seen[place] = sum(latest) / len(latest), len(latest)
                continue
            mean, old, alpha = sum(successes) / len(successes), float(self._rates[place]), self.spec.alpha
            self._rates[place] = mean if np.isnan(old) else min(alpha * mean + (1 - alpha) * old, 1.0)
            self._seen[place] = len(successes) + (1 - alpha) * self._seen[place]

    def state_dict(self) -> dict[str, Any]:
        """Return the averages, None for what is unknown, what they rest on, and the windows."""
        rates = [None if np.isnan(rate) else rate for rate in plain(self._rates)]
        return {"rates": rates, "seen": plain(self._seen), "latest": [list(latest) for latest in self._latest]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up saved averages."""
        self._rates = np.array([np.nan if rate is None else rate for rate in state["rates"]], np.float64)
        self._seen = np.array(state["seen"], np.float64)
        self._latest = [[float(value) for value in latest] for latest in state["latest"]]
