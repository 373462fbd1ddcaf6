"""Easy to hard: levels open one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.catalog import Paper
from outlay.context import Context
from outlay.schedules.base import require
from outlay.teachers.base import Asking, difficulties, drawn_without


@dataclass(frozen=True)
class EasyToHard:
    """Arms of equal difficulty are a level; levels open from the easiest on, and those that are open share equally.

    By progress, the newest of L levels is min(floor(L progress / until), L - 1), so each is the newest for as long. With ``advance`` the next
    one opens as soon as the latest ``answers`` answers to questions of the newest have a mean success above it, whatever the progress; the
    paper goes on above 0.98. Levels that have been opened stay open (its many-headed curriculum), or only the newest ``width`` do (1 is its
    single-headed one).

    Args:
        until: progress at which the last level would close if it lasted as long as the others, in (0, 1].
        width: levels open at once, the newest ones, > 0; None for all up to the newest.
        reverse: from hard to easy.
        advance: mean success above which the next level opens, in [0, 1); None goes by progress.
        answers: latest judged answers of the newest level over which the mean is taken, > 0; fewer never advance.
    """

    title: ClassVar[str] = "Easy to hard"
    paper: ClassVar[Paper | None] = Paper(
        "2309.12927", "Emergent mechanisms for long timescales depend on training curriculum and affect performance in memory tasks", 2023
    )

    until: float = 1.0
    width: int | None = None
    reverse: bool = False
    advance: float | None = None
    answers: int = 64

    def __post_init__(self) -> None:
        require(0 < self.until <= 1, f"until must be in (0, 1], found {self.until}")
        require(self.width is None or self.width > 0, f"width must be > 0 or None, found {self.width}")
        require(self.advance is None or 0 <= self.advance < 1, f"advance must be in [0, 1) or None, found {self.advance}")
        require(self.answers > 0, f"answers must be > 0, found {self.answers}")

    def open(self, arms: Sequence[Arm], context: Context) -> EasyToHardLessons:
        """Return the lessons.

        Raises:
            InputError: when an arm has no difficulty.
        """
        hard = difficulties(arms, "easy_to_hard")
        _, levels = np.unique(-hard if self.reverse else hard, return_inverse=True)
        return EasyToHardLessons(self, levels.astype(np.int64))


@dataclass
class EasyToHardLessons:
    """The newest level, and the latest answers to it, where success opens the next; nothing where progress does."""

    spec: EasyToHard
    levels: IntArray
    _newest: int = 0
    _latest: list[float] = field(default_factory=list)

    def newest(self, progress: float) -> int:
        """Return the number of the newest open level, 0-based in the order of opening."""
        if self.spec.advance is not None:
            return self._newest
        many = int(self.levels.max()) + 1
        return min(int(many * progress / self.spec.until), many - 1)

    def shares(self, asking: Asking) -> FloatArray:
        """Return equal shares of the arms of open levels."""
        newest = self.newest(asking.progress)
        oldest = 0 if self.spec.width is None else newest - self.spec.width + 1
        opened = (self.levels >= oldest) & (self.levels <= newest)
        return np.asarray(opened / opened.sum(), np.float64)

    def choose(self, asking: Asking) -> IntArray:
        """Return open arms in rounds of random order."""
        return drawn_without(self.shares(asking), asking)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        """Open the next level once the newest is mastered."""
        if self.spec.advance is None:
            return
        answered = [success for one in outcomes if self.levels[one.arm] == self._newest for success in one.successes]
        self._latest = [*self._latest, *answered][-self.spec.answers :]
        mastered = len(self._latest) == self.spec.answers and sum(self._latest) / len(self._latest) > self.spec.advance
        if mastered and self._newest < int(self.levels.max()):
            self._newest, self._latest = self._newest + 1, []

    def state_dict(self) -> dict[str, Any]:
        """Return the newest level and the latest answers to it."""
        return {"newest": self._newest, "latest": list(self._latest)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved level."""
        self._newest = int(state["newest"])
        self._latest = [float(value) for value in state["latest"]]
