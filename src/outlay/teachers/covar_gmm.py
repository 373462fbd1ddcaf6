"""Covar-GMM: tasks where success rises with time, found by Gaussian mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray
from outlay.catalog import Paper
from outlay.context import Context
from outlay.schedules.base import require
from outlay.teachers.task_space import MixtureSpace, SpaceLessons, need_mixtures, places


@dataclass(frozen=True)
class CovarGmm:
    """Draws tasks where the reward rises with time: Gaussian mixtures are fitted to (place, time, reward) and a component is drawn in
    proportion to max(cov(time, reward), 0).

    Every ``fit_every`` tasks, mixtures of 2 to ``most`` components are fitted to the last ``fit_every``, whose times run 0, 1 / n ..
    (n - 1) / n, and that of least AIC is kept. Uniform tasks and draws are those of ALP-GMM.

    Args:
        fit_every: tasks between two fits, > 0, and tasks that each looks at.
        explore: share of uniform tasks, in [0, 1].
        most: most components of a mixture, >= 2.
        falling: whether rewards that fall count as well: |cov| in place of its positive part.
    """

    title: ClassVar[str] = "Covar-GMM"
    paper: ClassVar[Paper | None] = Paper(
        "1910.07224", "Teacher algorithms for curriculum learning of Deep RL in continuously parameterized environments", 2019
    )

    fit_every: int = 250
    explore: float = 0.2
    most: int = 10
    falling: bool = False

    def __post_init__(self) -> None:
        require(self.fit_every > 0, f"fit_every must be > 0, found {self.fit_every}")
        require(0 <= self.explore <= 1, f"explore must be in [0, 1], found {self.explore}")
        require(self.most >= 2, f"most must be >= 2, found {self.most}")

    def space(self, width: int, seed: int) -> CovarSpace:
        """Return the space alone, of ``width`` dimensions; fits draw from named streams of ``seed``."""
        return CovarSpace(width, seed, self.fit_every, self.explore, self.most, self.falling)

    def open(self, arms: Sequence[Arm], context: Context) -> SpaceLessons:
        """Return the lessons.

        Raises:
            InputError: when an arm has no place in the space of tasks.
            MissingExtra: when scikit-learn is not installed.
        """
        need_mixtures()
        found = places(arms, "covar_gmm")
        return SpaceLessons(self.space(found.shape[1], context.seed), found, context.seed)


@dataclass
class CovarSpace(MixtureSpace):
    """Remembers the tasks since the last fit."""

    falling: bool = False
    stream: ClassVar[str] = "teachers/covar_gmm"

    def row(self, point: list[float], reward: float) -> list[float]:
        """Return (place, time, reward)."""
        return [*point, len(self.recent) / self.fit_every, reward]

    def interest(self, means: FloatArray, covariances: FloatArray) -> FloatArray:
        """Return each component's covariance of time and reward: its positive part, or its size."""
        found = covariances[:, self.width, self.width + 1]
        return np.abs(found) if self.falling else np.maximum(found, 0.0)
