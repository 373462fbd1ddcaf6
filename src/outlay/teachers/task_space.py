"""Teachers over a continuous space of tasks: what they share, and the one that learns nothing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError, MissingExtra
from outlay.rng import derive, numpy_generator
from outlay.teachers.base import Asking

#: points drawn to tell which share each arm gets
DRAWS = 8192


class TaskSpace(Protocol):
    """A distribution over the unit box that follows a run. Nothing but ``update`` and ``load_state_dict`` changes it."""

    def sample(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Return the next tasks, (count, width), every coordinate in [0, 1]."""
        ...

    def update(self, points: FloatArray, rewards: FloatArray) -> None:
        """Learn from tasks in the order in which they were done.

        Args:
            points: where they lie, (tasks, width).
            rewards: what came of them, (tasks,), each in [0, 1].
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that changes, as plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        ...


@dataclass(frozen=True)
class RandomPoint:
    """Points drawn uniformly from the unit box, each answered by the nearest arm: an arm's share is the volume that lies nearest to it.

    The baseline of the teachers over continuous tasks. It differs from ``uniform`` where arms lie unevenly.
    """

    title: ClassVar[str] = "Random point"
    paper: ClassVar[Paper | None] = None

    def space(self, width: int) -> RandomSpace:
        """Return the space alone, of ``width`` dimensions."""
        return RandomSpace(width)

    def open(self, arms: Sequence[Arm], context: Context) -> SpaceLessons:
        """Return the lessons.

        Raises:
            InputError: when an arm has no place in the space of tasks.
        """
        found = places(arms, "random_point")
        return SpaceLessons(self.space(found.shape[1]), found, context.seed)


@dataclass
class RandomSpace:
    """Remember nothing."""

    width: int

    def sample(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Return uniform points."""
        return rng.random((count, self.width))

    def update(self, points: FloatArray, rewards: FloatArray) -> None:
        """Change nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""


@dataclass
class SpaceLessons:
    """Lessons over arms that stand for the points of a space: a point drawn is answered by the nearest arm, the first of those equally near.

    What came of a question is learnt at its arm's own place, not at the point that was drawn. The shares are an estimate by Monte Carlo from
    one fixed stream of 8192 points, so that equal states give equal shares; their deviation is at most .006.
    """

    space: TaskSpace
    places: FloatArray
    seed: int

    def shares(self, asking: Asking) -> FloatArray:
        """Return the share of the fixed stream's points that lie nearest to each arm."""
        near = nearest(self.places, self.space.sample(DRAWS, numpy_generator(self.seed, "teachers/shares")))
        return np.bincount(near, minlength=len(self.places)) / DRAWS

    def choose(self, asking: Asking) -> IntArray:
        """Return the arms nearest to points drawn from the space."""
        return nearest(self.places, self.space.sample(asking.count, asking.rng))

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        """Tell the space the mean success of every judged question."""
        judged = [outcome for outcome in outcomes if outcome.rewards]
        if judged:
            self.space.update(self.places[[outcome.arm for outcome in judged]], np.array([outcome.rate for outcome in judged]))

    def state_dict(self) -> dict[str, Any]:
        """Return the space's state."""
        return self.space.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.space.load_state_dict(state)


def places(arms: Sequence[Arm], teacher: str) -> FloatArray:
    """Return every arm's place in the space of tasks, (arms, width).

    Raises:
        InputError: when an arm has none, has one outside the unit box, or has another number of coordinates than the first arm.
    """
    for arm in arms:
        if not arm.point or len(arm.point) != len(arms[0].point):
            raise InputError(
                f"{teacher} goes by places in a space of tasks, equally many coordinates for every arm, but {arm.name!r} has {arm.point}"
            )
        if not all(0 <= coordinate <= 1 for coordinate in arm.point):
            raise InputError(f"every coordinate of a place must lie in [0, 1], found {arm.point} at the arm {arm.name!r}")
    return np.array([arm.point for arm in arms], np.float64)


def nearest(places: FloatArray, points: FloatArray) -> IntArray:
    """Return the number of the place nearest to every point, (points,); of those equally near the first."""
    found = np.empty(len(points), np.int64)
    for start in range(0, len(points), 1024):
        piece = points[start : start + 1024]
        found[start : start + 1024] = np.argmin(((piece[:, None, :] - places[None]) ** 2).sum(axis=2), axis=1)
    return found


def proportional(weights: FloatArray) -> FloatArray:
    """Return weights, all >= 0, as shares; the same share for each where all are 0."""
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(weights), 1 / len(weights))


def picked(shares: FloatArray, count: int, rng: np.random.Generator) -> IntArray:
    """Return ``count`` numbers drawn with their shares as probabilities, (count,)."""
    edges = np.cumsum(shares)
    return np.searchsorted(edges / edges[-1], rng.random(count), side="right").astype(np.int64)


def need_mixtures() -> None:
    """Refuse at once what would fail at the first fit.

    Raises:
        MissingExtra: when scikit-learn is not installed.
    """
    try:
        import sklearn.mixture  # noqa: F401
    except ImportError:
        raise MissingExtra("scikit-learn", "tasks") from None


def fit_mixture(rows: FloatArray, most: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return means, (k, columns), and covariances, (k, columns, columns), of the Gaussian mixture of least AIC among k = 2..most.

    Where fewer rows differ than ``most``, no more components are tried than rows differ.
    """
    need_mixtures()
    from sklearn.mixture import GaussianMixture

    different = len(np.unique(rows, axis=0))
    least, best = np.inf, None
    for components in range(min(2, different), min(most, different) + 1):
        mixture = GaussianMixture(components, covariance_type="full", n_init=1, random_state=seed % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a fit has not converged is no reason to stop a run
            mixture.fit(rows)
        criterion = float(mixture.aic(rows))
        if best is None or criterion < least:
            least, best = criterion, mixture
    assert best is not None
    return np.asarray(best.means_, np.float64), np.asarray(best.covariances_, np.float64)


@dataclass
class MixtureSpace:
    """A space whose interesting places are found by a Gaussian mixture over (place, signals), fitted again after every ``fit_every`` tasks.

    A share ``explore`` of the tasks, and all before the first fit, are uniform. The others come from a component drawn in proportion to its
    interest (each alike where none has any): a draw of its normal distribution, its signals dropped, cut off at the box. A base: what the
    signals are, and what a component's interest is, is said by ``row`` and ``interest``.
    """

    width: int
    seed: int
    fit_every: int
    explore: float
    most: int
    stream: ClassVar[str] = ""

    done: int = field(default=0, init=False)
    recent: list[list[float]] = field(default_factory=list, init=False)
    interests: FloatArray = field(default_factory=lambda: np.zeros(0), init=False)
    means: FloatArray = field(default_factory=lambda: np.zeros((0, 0)), init=False)
    covariances: FloatArray = field(default_factory=lambda: np.zeros((0, 0, 0)), init=False)

    def row(self, point: list[float], reward: float) -> list[float]:
        """Return the place with its signals behind it."""
        raise NotImplementedError

    def interest(self, means: FloatArray, covariances: FloatArray) -> FloatArray:
        """Return every component's interest, (components,), >= 0."""
        raise NotImplementedError

    def sample(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Return points, some uniform, the others from the mixture."""
        points = rng.random((count, self.width))
        anywhere = rng.random(count) < self.explore
        if not len(self.interests):
            return points
        which = picked(proportional(self.interests), count, rng)
        factors = np.linalg.cholesky(self.covariances)[which]
        drawn = self.means[which] + (factors @ rng.standard_normal((count, self.width, 1)))[:, :, 0]
        return np.where(anywhere[:, None], points, np.clip(drawn, 0, 1))

    def update(self, points: FloatArray, rewards: FloatArray) -> None:
        """Remember tasks one by one; fit the mixture to the last ``fit_every`` whenever as many have come."""
        for point, reward in zip(points.tolist(), rewards.tolist(), strict=True):
            self.recent.append(self.row(point, reward))
            self.done += 1
            if self.done % self.fit_every == 0:
                self._fit()
                self.recent = []

    def _fit(self) -> None:
        seed = derive(self.seed, self.stream, self.done // self.fit_every)
        means, covariances = fit_mixture(np.array(self.recent), self.most, seed)
        self.interests = self.interest(means, covariances)
        self.means, self.covariances = means[:, : self.width], covariances[:, : self.width, : self.width]

    def state_dict(self) -> dict[str, Any]:
        """Return the tasks since the last fit and the mixture."""
        return {
            "done": self.done,
            "recent": [list(row) for row in self.recent],
            "interests": self.interests.tolist(),
            "means": self.means.tolist(),
            "covariances": self.covariances.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.done = int(state["done"])
        self.recent = [list(row) for row in state["recent"]]
        self.interests = np.array(state["interests"], np.float64)
        self.means = np.array(state["means"], np.float64).reshape(-1, self.width)
        self.covariances = np.array(state["covariances"], np.float64).reshape(-1, self.width, self.width)
