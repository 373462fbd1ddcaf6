"""ALP-GMM: tasks where success changes most, found by Gaussian mixtures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray
from outlay.catalog import Paper
from outlay.context import Context
from outlay.schedules.base import require
from outlay.teachers.task_space import MixtureSpace, SpaceLessons, need_mixtures, places


@dataclass(frozen=True)
class AlpGmm:
    """Draws tasks where the absolute learning progress is large: ALP = |r - r'|, r' being the reward of the nearest task done before.

    Every ``fit_every`` tasks, Gaussian mixtures of 2 to ``most`` components are fitted to the last ``fit_every`` vectors (place, ALP), and
    that of least AIC is kept. A component is drawn in proportion to its mean ALP, then a place from its normal distribution, cut off at the
    box. A share ``explore`` of the tasks, and the first ``fit_every``, are uniform.

    The code keeps a tree of all tasks, in which it is open which of several at one place is found. Here it is the latest, so only the latest
    reward at each place is remembered.

    Args:
        fit_every: tasks between two fits, > 0, and tasks that each looks at.
        explore: share of uniform tasks, in [0, 1].
        most: most components of a mixture, >= 2.
        least: tasks done before ALP is measured, >= 1; it is 0 for the first ``least`` + 1.
    """

    title: ClassVar[str] = "ALP-GMM"
    paper: ClassVar[Paper | None] = Paper(
        "1910.07224", "Teacher algorithms for curriculum learning of Deep RL in continuously parameterized environments", 2019
    )

    fit_every: int = 250
    explore: float = 0.2
    most: int = 10
    least: int = 5

    def __post_init__(self) -> None:
        require(self.fit_every > 0, f"fit_every must be > 0, found {self.fit_every}")
        require(0 <= self.explore <= 1, f"explore must be in [0, 1], found {self.explore}")
        require(self.most >= 2, f"most must be >= 2, found {self.most}")
        require(self.least >= 1, f"least must be >= 1, found {self.least}")

    def space(self, width: int, seed: int) -> AlpSpace:
        """Return the space alone, of ``width`` dimensions; fits draw from named streams of ``seed``."""
        return AlpSpace(width, seed, self.fit_every, self.explore, self.most, least=self.least)

    def open(self, arms: Sequence[Arm], context: Context) -> SpaceLessons:
        """Return the lessons.

        Raises:
            InputError: when an arm has no place in the space of tasks.
            MissingExtra: when scikit-learn is not installed.
        """
        need_mixtures()
        found = places(arms, "alp_gmm")
        return SpaceLessons(self.space(found.shape[1], context.seed), found, context.seed)


@dataclass
class AlpSpace(MixtureSpace):
    """Remembers the latest reward of every place, in the order in which they came."""

    least: int = 5
    stream: ClassVar[str] = "teachers/alp_gmm"
    latest: dict[tuple[float, ...], float] = field(default_factory=dict, init=False)

    def row(self, point: list[float], reward: float) -> list[float]:
        """Return (place, ALP); the task is remembered for the next ones."""
        progress = self.progress(point, reward)
        self.latest.pop(tuple(point), None)  # the latest stands last
        self.latest[tuple(point)] = reward
        return [*point, progress]

    def progress(self, point: list[float], reward: float) -> float:
        """Return |r - r'| to the nearest task before, the latest of those equally near; 0 while no more than ``least`` have been done."""
        if self.done <= self.least:
            return 0.0
        known = np.array(list(self.latest))
        distances = ((known - np.array(point)) ** 2).sum(axis=1)[::-1]
        before = list(self.latest.values())[len(known) - 1 - int(np.argmin(distances))]
        return abs(reward - before)

    def interest(self, means: FloatArray, covariances: FloatArray) -> FloatArray:
        """Return each component's mean ALP."""
        return np.maximum(means[:, self.width], 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Return the mixture's state and every place with its latest reward."""
        return super().state_dict() | {"latest": [[*point, reward] for point, reward in self.latest.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        super().load_state_dict(state)
        self.latest = {tuple(row[:-1]): row[-1] for row in state["latest"]}
