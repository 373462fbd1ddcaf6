"""RIAC: tasks where success changes most, found by cutting the space in two again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray
from outlay.catalog import Paper
from outlay.context import Context
from outlay.rng import numpy_generator
from outlay.schedules.base import require
from outlay.teachers.task_space import SpaceLessons, picked, places, proportional


@dataclass(frozen=True)
class Riac:
    """Cuts the space into regions and draws tasks from those with a large absolute learning progress ALP = |mean(second half of its rewards)
    - mean(first half)|, over its last ``most`` tasks.

    A region without parts that holds ``most`` tasks is cut: of ``tries`` random cuts (an axis, a threshold) whose parts are both wide enough
    and hold enough tasks, that of the largest n1 n2 |ALP1 - ALP2| is made. Where none will do, its oldest quarter is forgotten. A cut region
    stays to be drawn from beside its parts. Of the tasks, ``1 - explore - mutate`` are uniform in a region drawn in proportion to its ALP
    (each alike where all are 0), ``explore`` uniform in the whole box, and ``mutate`` near a region's task of least reward.

    The method is that of Baranes and Oudeyer, as the paper below uses it. The score of a cut, the quarter and the width .1 of a mutation, cut
    off at the box, are chosen after its code.

    Args:
        most: tasks that a region remembers, >= 4.
        tries: random cuts tried, > 0.
        part: least share of the tasks in either part of a cut, in [0, 0.5].
        width: least width of either part, as a share of the box, in (0, 0.5].
        explore: share of tasks from the whole box, in [0, 1].
        mutate: share of tasks near a region's worst, in [0, 1 - explore].
    """

    title: ClassVar[str] = "RIAC"
    paper: ClassVar[Paper | None] = Paper(
        "1910.07224", "Teacher algorithms for curriculum learning of Deep RL in continuously parameterized environments", 2019
    )

    most: int = 200
    tries: int = 50
    part: float = 0.05
    width: float = 1 / 15
    explore: float = 0.2
    mutate: float = 0.1

    def __post_init__(self) -> None:
        require(self.most >= 4, f"most must be >= 4, found {self.most}")
        require(self.tries > 0, f"tries must be > 0, found {self.tries}")
        require(0 <= self.part <= 0.5, f"part must be in [0, 0.5], found {self.part}")
        require(0 < self.width <= 0.5, f"width must be in (0, 0.5], found {self.width}")
        require(0 <= self.explore <= 1, f"explore must be in [0, 1], found {self.explore}")
        require(0 <= self.mutate <= 1 - self.explore, f"mutate must be in [0, 1 - explore], found {self.mutate}")

    def space(self, width: int, seed: int) -> RiacSpace:
        """Return the space alone, of ``width`` dimensions; cuts draw from named streams of ``seed``."""
        return RiacSpace(self, width, seed)

    def open(self, arms: Sequence[Arm], context: Context) -> SpaceLessons:
        """Return the lessons.

        Raises:
            InputError: when an arm has no place in the space of tasks.
        """
        found = places(arms, "riac")
        return SpaceLessons(self.space(found.shape[1], context.seed), found, context.seed)


@dataclass
class Region:
    """A box, lower bounds within and upper bounds outside (but for 1), with the tasks done in it."""

    low: list[float]
    high: list[float]
    tasks: list[list[float]] = field(default_factory=list)  # (place, reward), oldest first
    whole: bool = True

    def holds(self, point: list[float]) -> bool:
        """Return whether a point lies within."""
        return all(low <= x and (x < high or high == 1) for low, x, high in zip(self.low, point, self.high, strict=True))

    def __post_init__(self) -> None:
        self.progress = learning_progress([task[-1] for task in self.tasks])

    def keep(self, tasks: list[list[float]]) -> None:
        """Remember these tasks in place of those before."""
        self.tasks = tasks
        self.progress = learning_progress([task[-1] for task in tasks])


def learning_progress(rewards: Sequence[float]) -> float:
    """Return |mean of the second half - mean of the first|, an odd one counting to the second; 0 for two rewards or fewer."""
    half = len(rewards) // 2
    return abs(sum(rewards[half:]) / (len(rewards) - half) - sum(rewards[:half]) / half) if len(rewards) > 2 else 0.0


@dataclass
class RiacSpace:
    """Remembers all regions, each after the one that it was cut from."""

    teacher: Riac
    dimensions: int
    seed: int
    regions: list[Region] = field(default_factory=list)
    attempts: int = 0

    def __post_init__(self) -> None:
        if not self.regions:
            self.regions = [Region([0.0] * self.dimensions, [1.0] * self.dimensions)]

    def sample(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Return points: uniform in regions, uniform in the box, or near a region's worst."""
        kind, points = rng.random(count), rng.random((count, self.dimensions))
        steps = 0.1 * rng.standard_normal((count, self.dimensions))
        which = picked(proportional(np.array([region.progress for region in self.regions])), count, rng)
        low, high = np.array([region.low for region in self.regions])[which], np.array([region.high for region in self.regions])[which]
        inside = low + points * (high - low)
        found = np.where((kind < self.teacher.explore)[:, None], points, inside)
        near = (kind >= self.teacher.explore) & (kind < self.teacher.explore + self.teacher.mutate)
        for number, region in enumerate(self.regions):
            if region.tasks:
                worst = min(region.tasks, key=lambda task: task[-1])
                chosen = near & (which == number)
                found[chosen] = np.clip(np.array(worst[:-1]) + steps[chosen], 0, 1)
        return found

    def update(self, points: FloatArray, rewards: FloatArray) -> None:
        """Remember tasks one by one in every region that holds them; cut those that are full."""
        for point, reward in zip(points.tolist(), rewards.tolist(), strict=True):
            for region in [region for region in self.regions if region.holds(point)]:
                region.keep([*region.tasks, [*point, reward]][-self.teacher.most :])
                if region.whole and len(region.tasks) == self.teacher.most:
                    self._cut(region)

    def _cut(self, region: Region) -> None:
        rng = numpy_generator(self.seed, "teachers/riac", self.attempts)
        self.attempts += 1
        best: tuple[Region, Region] | None = None
        most = -1.0
        for _ in range(self.teacher.tries):
            axis, share = int(rng.integers(self.dimensions)), float(rng.random())
            parts = _parts(region, axis, region.low[axis] + share * (region.high[axis] - region.low[axis]))
            wide = min(part.high[axis] - part.low[axis] for part in parts) >= self.teacher.width
            if not wide or min(len(part.tasks) for part in parts) < max(self.teacher.part * self.teacher.most, 1):
                continue
            score = len(parts[0].tasks) * len(parts[1].tasks) * abs(parts[0].progress - parts[1].progress)
            if score > most:
                best, most = parts, score
        if best is None:
            region.keep(region.tasks[(self.teacher.most + 3) // 4 :])
            return
        region.whole = False
        self.regions.extend(best)

    def state_dict(self) -> dict[str, Any]:
        """Return every region and the number of cuts tried."""
        regions = [{"low": r.low[:], "high": r.high[:], "tasks": [task[:] for task in r.tasks], "whole": r.whole} for r in self.regions]
        return {"regions": regions, "attempts": self.attempts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.regions = [Region(list(r["low"]), list(r["high"]), [list(t) for t in r["tasks"]], bool(r["whole"])) for r in state["regions"]]
        self.attempts = int(state["attempts"])


def _parts(region: Region, axis: int, threshold: float) -> tuple[Region, Region]:
    left = [task for task in region.tasks if task[axis] < threshold]
    right = [task for task in region.tasks if task[axis] >= threshold]
    high, low = region.high[:], region.low[:]
    high[axis] = low[axis] = threshold
    return Region(region.low[:], high, left), Region(low, region.high[:], right)
