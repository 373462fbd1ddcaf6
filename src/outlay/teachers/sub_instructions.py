"""Sub-instructions: a few things to do at first, all of them in the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.schedules.base import require
from outlay.teachers.base import Asking, difficulties, drawn, softmax
from outlay.teachers.reverse_starts import Frontier


@dataclass(frozen=True)
class SubInstructions:
    """Gives part of an instruction first, and lets it grow: an arm's difficulty is the number of things that are left to do in it.

    The size k in play starts at the smallest number. It grows with progress, an equal piece of ``until`` for each size, or when the mean
    success of the last ``window`` judged questions of that size reaches ``threshold``. Of k things each is done beforehand with probability p
    (a warm start), so that r are left with probability C(k, r) (1 - p)^r p^(k - r); questions with nothing left are drawn only where an arm
    stands for them. p falls in a straight line from ``warm`` to 0 at ``cold``. With ``keep`` all sizes up to k are played alike.

    The paper does not say how its curricula are scheduled; these schedules are chosen. That 98 % is success enough to go on, and that solved
    sizes are best kept, was found for memory tasks in arXiv 2309.12927; lower the threshold where exploration costs success.

    Args:
        grow: ``success`` or ``schedule``.
        until: share of the budget at which the schedule reaches the largest size, in (0, 1].
        threshold: success at which the size grows, in [0, 1].
        window: judged questions that success is measured on, > 0.
        keep: whether sizes that have been outgrown are played on.
        warm: p at the beginning, in [0, 1].
        cold: share of the budget at which p is 0, in (0, 1].
    """

    title: ClassVar[str] = "QWeb curricula"
    paper: ClassVar[Paper | None] = Paper("1812.09195", "Learning to Navigate the Web", 2018)

    grow: Literal["success", "schedule"] = "success"
    until: float = 0.8
    threshold: float = 0.98
    window: int = 32
    keep: bool = True
    warm: float = 0.5
    cold: float = 0.5

    def __post_init__(self) -> None:
        require(self.grow in ("success", "schedule"), f"grow must be success or schedule, found {self.grow!r}")
        require(0 < self.until <= 1, f"until must be in (0, 1], found {self.until}")
        require(0 <= self.threshold <= 1, f"threshold must be in [0, 1], found {self.threshold}")
        require(self.window > 0, f"window must be > 0, found {self.window}")
        require(0 <= self.warm <= 1, f"warm must be in [0, 1], found {self.warm}")
        require(0 < self.cold <= 1, f"cold must be in (0, 1], found {self.cold}")

    def open(self, arms: Sequence[Arm], context: Context) -> SubInstructionLessons:
        """Return the lessons.

        Raises:
            InputError: when an arm's difficulty is not a whole number >= 0.
        """
        numbers = difficulties(arms, "sub_instructions")
        for arm, number in zip(arms, numbers, strict=True):
            if number < 0 or number != math.floor(number):
                raise InputError(f"sub_instructions takes for difficulty how many things are left to do, but {arm.name!r} has {number}")
        sizes = np.unique(numbers[numbers > 0]) if (numbers > 0).any() else np.zeros(1)
        return SubInstructionLessons(self, numbers, sizes, Frontier(len(sizes) - 1, self.threshold, self.window))

    def chance(self, progress: float) -> float:
        """Return p, the probability that a thing is done beforehand."""
        return self.warm * max(0.0, 1 - progress / self.cold)


@dataclass
class SubInstructionLessons:
    """Remember the size in play and what came of it."""

    teacher: SubInstructions
    numbers: FloatArray
    sizes: FloatArray
    frontier: Frontier

    def level(self, progress: float) -> int:
        """Return which of the sizes, from 0, is in play."""
        if self.teacher.grow == "success":
            return self.frontier.level
        return min(int(progress / self.teacher.until * len(self.sizes)), len(self.sizes) - 1)

    def shares(self, asking: Asking) -> FloatArray:
        """Return the mean, over the sizes in play, of the probabilities of what is left."""
        level, chance = self.level(asking.progress), self.teacher.chance(asking.progress)
        playing = self.sizes[: level + 1] if self.teacher.keep else self.sizes[level : level + 1]
        return np.asarray(np.mean([self._left(int(size), chance) for size in playing], axis=0), np.float64)

    def _left(self, size: int, chance: float) -> FloatArray:
        """Return every arm's share of questions of a size, given that an arm stands for what is left."""
        numbers, which, arms = np.unique(self.numbers, return_inverse=True, return_counts=True)
        if 0 < chance < 1:
            likely = softmax(np.array([_log_binomial(size, int(left), 1 - chance) for left in numbers]))
        else:
            # nothing is done beforehand; or everything is, in the limit of which the least that an arm stands for is left
            likely = np.asarray(numbers == (size if chance == 0 else numbers[0]), np.float64)
        return np.asarray((likely / arms)[which.reshape(-1)], np.float64)

    def choose(self, asking: Asking) -> IntArray:
        """Return arms drawn by their shares."""
        return drawn(self.shares(asking), asking)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        """Count the success of questions of the size in play, one after another."""
        for outcome in outcomes:
            if outcome.rewards:
                number = self.numbers[outcome.arm]
                self.frontier.saw(int(np.searchsorted(self.sizes, number)) if number > 0 else -1, outcome.rate)

    def state_dict(self) -> dict[str, Any]:
        """Return the frontier's state."""
        return self.frontier.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.frontier.load_state_dict(state)


def _log_binomial(size: int, left: int, chance: float) -> float:
    """Return ln C(size, left) chance^left (1 - chance)^(size - left); -inf where more are left than there were."""
    if left > size:
        return -math.inf
    ways = math.lgamma(size + 1) - math.lgamma(left + 1) - math.lgamma(size - left + 1)
    return ways + left * math.log(chance) + (size - left) * math.log1p(-chance)
