"""Floor: no arm is starved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray, Outcome
from outlay.catalog import Paper
from outlay.context import Context
from outlay.schedules.base import require
from outlay.teachers.base import Asking, Examined, Lessons, Ranks, Screens, Sets, Teacher


@dataclass(frozen=True)
class Floor:
    """Mix another teacher with the uniform one: shares = (1 - floor) inner + floor / arms.

    Each question goes to an arm drawn evenly with probability ``floor``, and where the inner teacher puts it otherwise. Where that one screens,
    it is the candidates that have the floor, and what is kept of them is its choice.

    Args:
        teacher: the teacher that is mixed.
        floor: share that is divided evenly, in [0, 1].
    """

    title: ClassVar[str] = "A floor under another teacher's shares"
    paper: ClassVar[Paper | None] = None

    teacher: Teacher
    floor: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.floor <= 1, f"floor must be in [0, 1], found {self.floor}")

    def open(self, arms: Sequence[Arm], context: Context) -> FlooredLessons:
        """Return lessons that screen, rank and are examined where the inner ones are.

        Raises:
            InputError: as the inner teacher does.
        """
        inner = self.teacher.open(arms, context)
        # protocols are told by structure: only what the inner lessons have may be there
        parts = [part for protocol, part in _PASSED if isinstance(inner, protocol)]
        kind: type[FlooredLessons] = type("FlooredLessons", (*parts, FlooredLessons), {})
        return kind(self.floor, len(arms), inner)


class FlooredLessons:
    """Another teacher's lessons, mixed with even ones."""

    def __init__(self, floor: float, arms: int, inner: Lessons) -> None:
        self.floor, self.arms, self.inner = floor, arms, inner

    def shares(self, asking: Asking) -> FloatArray:
        """Return (1 - floor) inner + floor / arms."""
        return np.asarray((1 - self.floor) * self.inner.shares(asking) + self.floor / self.arms, np.float64)

    def choose(self, asking: Asking) -> IntArray:
        """Return the inner choice, of which each has been replaced with probability ``floor``."""
        chosen = self.inner.choose(asking)
        evenly = asking.rng.random(asking.count) < self.floor
        return np.where(evenly, asking.rng.integers(self.arms, size=asking.count), chosen).astype(np.int64)

    def update(self, chosen: IntArray, outcomes: Sequence[Outcome]) -> None:
        """Pass a batch on, whoever chose it."""
        self.inner.update(chosen, outcomes)

    def state_dict(self) -> dict[str, Any]:
        """Return the inner state."""
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up an inner state."""
        self.inner.load_state_dict(state)


class _Screening(FlooredLessons):
    inner: Screens

    @property
    def over(self) -> int:
        return self.inner.over

    def screen(self, rates: FloatArray, asking: Asking) -> IntArray:
        return self.inner.screen(rates, asking)


class _Ranking(FlooredLessons):
    inner: Ranks

    def ranked(self, scores: FloatArray) -> None:
        self.inner.ranked(scores)


class _Examining(FlooredLessons):
    inner: Examined

    def examined(self, losses: FloatArray, progress: float) -> None:
        self.inner.examined(losses, progress)


class _OfSets(FlooredLessons):
    inner: Sets

    @property
    def sets(self) -> bool:
        return self.inner.sets


_PASSED: tuple[tuple[Any, type[FlooredLessons]], ...] = (
    (Screens, _Screening),
    (Ranks, _Ranking),
    (Examined, _Examining),
    (Sets, _OfSets),
)
