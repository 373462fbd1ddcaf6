"""Nearest neighbour: what came of the questions that are most alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.estimators.features import Latest, read
from outlay.estimators.windowed import WindowedEstimates, lately
from outlay.schedules.base import require


@dataclass(frozen=True)
class NearestNeighbour:
    """Rate of a question = mean success of the ``k`` questions nearest to it (Euclid) among the latest ``window``; of questions that are
    equally far the later ones count. Unknown until ``least`` have been judged.

    The paper compares a task's reward with that of the nearest earlier task, once there are more than five of them, and keeps 500; hence
    the defaults. One neighbour's few answers are a noisy estimate: take ``k`` = 8 or so where rates, not their changes, are wanted.

    Args:
        k: neighbours, > 0; all there are while there are fewer.
        weighted: weigh each neighbour by 1 / distance instead of alike; the same question weighs as one a millionth of the largest norm away.
        window: questions that are remembered, >= k.
        least: questions below which everything is unknown, > 0.
        reads: where questions lie: ``text`` hashed runs of characters, ``model`` what the model makes of them, ``nothing`` their arm's place
            in the space of tasks. With ``nothing`` arms that were never chosen are estimated from their neighbours; otherwise the rate of
            an arm is the mean over its latest 16 answers.
    """

    title: ClassVar[str] = "Nearest neighbour"
    paper: ClassVar[Paper | None] = Paper(
        "1910.07224", "Teacher algorithms for curriculum learning of Deep RL in continuously parameterized environments", 2019
    )

    k: int = 1
    weighted: bool = False
    window: int = 500
    least: int = 6
    reads: Literal["nothing", "text", "model"] = "text"

    def __post_init__(self) -> None:
        require(self.k > 0, f"k must be > 0, found {self.k}")
        require(self.window >= self.k, f"window must be >= k = {self.k}, found {self.window}")
        require(self.least > 0, f"least must be > 0, found {self.least}")
        require(self.reads in ("nothing", "text", "model"), f"reads must be nothing, text or model, found {self.reads!r}")

    def open(self, arms: Sequence[Arm], context: Context) -> NeighbourEstimates:
        """Return estimates that know nothing yet.

        Raises:
            InputError: when questions lie where their arms do, and the arms lie nowhere.
        """
        if self.reads != "nothing":
            return NeighbourEstimates(self, lately(arms), Latest(self.window, self.reads), None)
        if len({len(arm.point) for arm in arms}) > 1 or not all(arm.point for arm in arms):
            raise InputError("nearest_neighbour with reads: nothing goes by the arms' places, but some have none or of other dimensions")
        return NeighbourEstimates(self, lately(arms), Latest(self.window, self.reads), np.array([arm.point for arm in arms], np.float64))


@dataclass
class NeighbourEstimates:
    """The latest questions and where they lie.

    Args:
        spec: what it was opened from.
        lately: each arm's latest answers.
        latest: the latest questions.
        points: where the arms lie, (arms, dimensions); None when each question has features of its own.
    """

    spec: NearestNeighbour
    lately: WindowedEstimates
    latest: Latest
    points: FloatArray | None

    def rates(self) -> FloatArray:
        """Return the mean over each arm's latest answers, or what the neighbours of its place say."""
        return self.lately.rates() if self.points is None else self._at(self.points)

    def seen(self) -> FloatArray:
        """Return how many of each arm's own answers are remembered, 16 at most or one visit's."""
        return self.lately.seen()

    def of(self, arms: IntArray, features: FloatArray | None) -> FloatArray:
        """Return the mean success of each question's neighbours."""
        return self._at(read(features, self.spec.reads) if self.points is None else self.points[arms])

    def _at(self, places: FloatArray) -> FloatArray:
        if len(self.latest) < self.spec.least or not len(places):
            return np.full(len(places), np.nan)
        known = self.latest.features[::-1]  # the latest first: ties go to them
        norms = (known**2).sum(1)
        # in steps of 1e-12 of the largest: what is left of equal questions by rounding must neither order nor weigh them
        unit = 1e-12 * (float(norms.max()) or 1.0)
        squares = np.maximum(np.rint(((places**2).sum(1)[:, None] - 2 * places @ known.T + norms) / unit), 1.0)
        chosen = _smallest(squares, self.spec.k)
        rates = self.latest.rates[::-1][chosen]
        if not self.spec.weighted:
            return np.asarray(rates.mean(1), np.float64)
        weights = 1 / np.sqrt(np.take_along_axis(squares, chosen, 1))
        return np.asarray(np.minimum((weights * rates).sum(1) / weights.sum(1), 1.0), np.float64)

    def update(self, outcomes: Sequence[Outcome]) -> None:
        """Remember the judged questions."""
        judged = [one for one in outcomes if one.rewards]
        if self.points is None:
            self.latest.add(judged)
        else:
            self.latest.put(self.points[[one.arm for one in judged]], np.array([one.rate for one in judged]))
        self.lately.update(judged)

    def state_dict(self) -> dict[str, Any]:
        """Return the questions and the arms' answers."""
        return {"latest": self.latest.state_dict(), "lately": self.lately.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up saved questions and answers."""
        self.latest.load_state_dict(state["latest"])
        self.lately.load_state_dict(state["lately"])


def _smallest(values: FloatArray, k: int) -> IntArray:
    """The places of the k smallest of every row, ascending; of equal ones the first."""
    if k >= values.shape[1]:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    if k == 1:
        return values.argmin(1)[:, None]
    found = np.argpartition(values, k - 1, axis=1)[:, :k]
    # a partition takes any of equal values, a stable sort the first of them; sorting all rows would take five times as long
    bound = np.take_along_axis(values, found, 1).max(1, keepdims=True)
    tied = (values <= bound).sum(1) > k
    found[tied] = np.argsort(values[tied], axis=1, kind="stable")[:, :k]
    return np.asarray(np.sort(found, axis=1), np.int64)
