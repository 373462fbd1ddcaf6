"""Uniform: every arm alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from outlay.arms import Arm, FloatArray, IntArray
from outlay.catalog import Paper
from outlay.context import Context
from outlay.teachers.base import Asking, Stateless, drawn_without, even


@dataclass(frozen=True)
class Uniform:
    """Every arm gets the same share, whatever comes of it: p = 1 / arms. The baseline of all teachers.

    Arms are drawn without replacement until all have come, so that numbers of questions differ by one at most within a batch.
    """

    title: ClassVar[str] = "Uniform"
    paper: ClassVar[Paper | None] = None

    def open(self, arms: Sequence[Arm], context: Context) -> UniformLessons:
        """Return the lessons."""
        return UniformLessons(len(arms))


@dataclass
class UniformLessons(Stateless):
    """Remember nothing."""

    arms: int

    def shares(self, asking: Asking) -> FloatArray:
        """Return 1 / arms for each."""
        return even(self.arms)

    def choose(self, asking: Asking) -> IntArray:
        """Return arms in rounds of random order."""
        return drawn_without(even(self.arms), asking)
