"""What teachers share that first measure every arm and then keep some of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from outlay.arms import FloatArray, IntArray, Outcome
from outlay.teachers.base import Asking, drawn_without


@dataclass
class MeasuredLessons:
    """Measure evenly for the first part of the stage, then learn from what was selected, evenly.

    While they measure, arms are visited in epochs: one that has been visited less often comes first, in random order. A visit is a batch in
    which the arm was used, and what is kept of it is its mean success, or a gap where nothing could be judged. The selection goes by the epochs
    that every arm has completed, and by the first at least; visits after them, of what was selected, do not count.

    Args:
        share: part of the stage's budget that is measured, in [0, 1].
        epochs: visits of an arm that are kept, > 0; once every arm has them, measuring ends early.
        arms: how many there are.
    """

    share: float
    epochs: int
    arms: int
    _visits: list[list[float | None]] = field(init=False)

    def __post_init__(self) -> None:
        self._visits = [[] for _ in range(self.arms)]

    @abstractmethod
    def keep(self, history: FloatArray) -> IntArray:
        """Return the arms to learn from, (kept,), ascending, from their successes by epoch, (arms, epochs), nan in gaps."""

    def measures(self, asking: Asking) -> bool:
        """Return whether measuring goes on."""
        return asking.progress < self.share and min(map(len, self._visits)) < self.epochs

    def history(self) -> FloatArray:
        """Return every arm's mean success by epoch, (arms, epochs completed by all, at least 1), nan in gaps."""
        whole = max(min(map(len, self._visits)), 1)
        found = np.full((self.arms, whole), np.nan)
        for arm, visits in enumerate(self._visits):
            for epoch, rate in enumerate(visits[:whole]):
                found[arm, epoch] = np.nan if rate is None else rate
        return found

    def kept(self) -> IntArray:
        """Return the arms that would be learnt from now; all where nothing has been judged."""
        found = self.keep(self.history())
        return found if len(found) else np.arange(self.arms, dtype=np.int64)

    def shares(self, asking: Asking) -> FloatArray:
        """Return what the arms of the epoch that is under way get, or equal shares of those that are kept."""
        found = np.zeros(self.arms)
        if not self.measures(asking):
            kept = self.kept()
            found[kept] = 1 / len(kept)
            return found
        rounds, rest = divmod(asking.count, self.arms)
        counts = np.array([len(visits) for visits in self._visits])
        for count in np.unique(counts):
            group = counts == count
            found[group] = min(rest, int(group.sum())) / group.sum()
            rest -= min(rest, int(group.sum()))
        return np.asarray((found + rounds) / asking.count, np.float64)

    def choose(self, asking: Asking) -> IntArray:
        """Return the arms that have been visited least, or rounds over those that are kept."""
        if not self.measures(asking):
            return drawn_without(self.shares(asking), asking)
        order = np.lexsort((asking.rng.random(self.arms), np.array([len(visits) for visits in self._visits])))
        return np.resize(order, asking.count).astype(np.int64)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        """Note one visit of every arm that was used."""
        successes: dict[int, list[float]] = {arm: [] for arm in np.unique(chosen).tolist()}
        for one in outcomes:
            successes.setdefault(one.arm, []).extend(one.successes)
        for arm, found in successes.items():
            if len(self._visits[arm]) < self.epochs:
                self._visits[arm].append(sum(found) / len(found) if found else None)

    def state_dict(self) -> dict[str, Any]:
        """Return the visits."""
        return {"visits": [list(visits) for visits in self._visits]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up saved visits."""
        self._visits = [[None if rate is None else float(rate) for rate in visits] for visits in state["visits"]]


def best(scores: FloatArray, count: int) -> IntArray:
    """Return the ``count`` arms of the largest scores, ascending; of equal ones the first. Those without a score (nan) are left out."""
    order = np.argsort(np.where(np.isnan(scores), np.inf, -scores), kind="stable")
    return np.sort(order[: min(count, int(np.count_nonzero(~np.isnan(scores))))]).astype(np.int64)
