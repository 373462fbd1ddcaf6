"""Reverse starts: from near the goal backwards, as far as success reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.catalog import Paper
from outlay.context import Context
from outlay.schedules.base import require
from outlay.teachers.base import Asking, difficulties, drawn


@dataclass(frozen=True)
class ReverseStarts:
    """Starts near the goal first, and moves the start back by one distance whenever the success at the present one is high enough.

    An arm's difficulty is its distance to the goal. Starts are drawn evenly from the ``width`` distances that end with the frontier, and from
    the arms at each evenly. When the mean success of the last ``window`` judged questions at the frontier reaches ``threshold``, the next
    distance becomes the frontier, and its success is counted afresh. Written for starts taken from a demonstration, from its end to its
    beginning; there is no one paper that it follows.

    Args:
        threshold: success at which the frontier moves, in [0, 1].
        window: judged questions at the frontier that are looked at, > 0.
        width: distances in play, > 0; 1 is the frontier alone.
    """

    title: ClassVar[str] = "Reverse starts"
    paper: ClassVar[Paper | None] = None

    threshold: float = 0.8
    window: int = 32
    width: int = 3

    def __post_init__(self) -> None:
        require(0 <= self.threshold <= 1, f"threshold must be in [0, 1], found {self.threshold}")
        require(self.window > 0, f"window must be > 0, found {self.window}")
        require(self.width > 0, f"width must be > 0, found {self.width}")

    def open(self, arms: Sequence[Arm], context: Context) -> ReverseLessons:
        """Return the lessons.

        Raises:
            InputError: when an arm has no difficulty.
        """
        levels = np.unique(difficulties(arms, "reverse_starts"), return_inverse=True)[1].reshape(-1)
        return ReverseLessons(levels, self.width, Frontier(int(levels.max()), self.threshold, self.window))


@dataclass
class Frontier:
    """The hardest level in play, from 0; it moves up when its last ``window`` questions have a mean success of ``threshold`` or more."""

    last: int
    threshold: float
    window: int
    level: int = 0
    recent: list[float] = field(default_factory=list)

    def saw(self, level: int, rate: float) -> None:
        """Count a judged question; those at other levels than the frontier are passed over."""
        if level != self.level or self.level == self.last:
            return
        self.recent = [*self.recent, rate][-self.window :]
        # the same sum in the same order whenever it is formed; the slack is for rates such as .1, which are not what they look like
        if len(self.recent) == self.window and sum(self.recent) >= self.threshold * self.window - 1e-9:
            self.level, self.recent = self.level + 1, []

    def state_dict(self) -> dict[str, Any]:
        """Return the level and its questions."""
        return {"level": self.level, "recent": list(self.recent)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.level, self.recent = int(state["level"]), list(state["recent"])


@dataclass
class ReverseLessons:
    """Remember the frontier and what came of it."""

    levels: IntArray
    width: int
    frontier: Frontier

    def shares(self, asking: Asking) -> FloatArray:
        """Return the same share for each distance in play, evenly divided among its arms."""
        distance = self.frontier.level - self.levels
        playing = np.where((distance >= 0) & (distance < self.width), 1 / np.bincount(self.levels)[self.levels], 0.0)
        return playing / playing.sum()

    def choose(self, asking: Asking) -> IntArray:
        """Return arms drawn by their shares."""
        return drawn(self.shares(asking), asking)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        """Move the frontier by what came of questions there, one after another."""
        for outcome in outcomes:
            if outcome.rewards:
                self.frontier.saw(int(self.levels[outcome.arm]), outcome.rate)

    def state_dict(self) -> dict[str, Any]:
        """Return the frontier's state."""
        return self.frontier.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.frontier.load_state_dict(state)
