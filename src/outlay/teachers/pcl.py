"""PCL: of many candidates, those whose success is nearest to a half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray
from outlay.catalog import Paper
from outlay.context import Context
from outlay.schedules.base import require
from outlay.teachers.base import Asking, Stateless, drawn_without, even


@dataclass(frozen=True)
class Pcl:
    """Draw ``over`` times as many candidates as are wanted, evenly, and keep those with the smallest |V - tau|.

    V is the estimated success rate of each candidate: the paper learns it with a value model, and any estimator serves. A candidate of which
    nothing is known counts as V = tau, so that it is tried; of equal candidates the first stays, and their order is random. ``over`` = 1 keeps
    everything: plain uniform sampling.

    Args:
        over: candidates for every question that is kept, > 0. The paper's value is not certain; 4 is what is told of it.
        tau: success rate that is sought, in [0, 1].
    """

    title: ClassVar[str] = "PCL, prompts of intermediate difficulty"
    paper: ClassVar[Paper | None] = Paper("2510.01135", "Prompt Curriculum Learning for Efficient LLM Post-Training", 2025)

    over: int = 4
    tau: float = 0.5

    def __post_init__(self) -> None:
        require(self.over > 0, f"over must be > 0, found {self.over}")
        require(0 <= self.tau <= 1, f"tau must be in [0, 1], found {self.tau}")

    def open(self, arms: Sequence[Arm], context: Context) -> PclLessons:
        """Return the lessons."""
        return PclLessons(self, len(arms))


@dataclass
class PclLessons(Stateless):
    """Remember nothing: what is known lies in the estimates."""

    spec: Pcl
    arms: int

    @property
    def over(self) -> int:
        """Candidates for every question that is kept."""
        return self.spec.over

    def shares(self, asking: Asking) -> FloatArray:
        """Return 1 / arms for each: the shares of the candidates, before they are screened."""
        return even(self.arms)

    def choose(self, asking: Asking) -> IntArray:
        """Return candidates in rounds of random order."""
        return drawn_without(even(self.arms), asking)

    def screen(self, rates: FloatArray, asking: Asking) -> IntArray:
        """Return the positions of the ``asking.count`` candidates nearest to tau, ascending."""
        distance = np.abs(np.where(np.isnan(rates), self.spec.tau, rates) - self.spec.tau)
        return np.sort(np.argsort(distance, kind="stable")[: asking.count]).astype(np.int64)
