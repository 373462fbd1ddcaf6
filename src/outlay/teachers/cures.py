"""CurES: questions in proportion to the exponential of how much their answers vary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray
from outlay.catalog import Paper
from outlay.context import Context
from outlay.schedules.base import require
from outlay.teachers.base import Asking, Stateless, drawn, drawn_without, expected_without, softmax


@dataclass(frozen=True)
class Cures:
    """q = softmax(sqrt(p (1 - p)) / tau), p the estimated success rate; 1/2 where nothing is known, the mean of its prior.

    Arms that are single questions are drawn without replacement within a batch, as in the paper; where an arm holds more than one question
    every question of the batch is an independent draw. The estimate is the estimator's: the paper's is the mean of a Beta(1, 1) posterior.
    How many answers each gets is an allocator's. The released code divides by 100 (successes + 1) instead of a temperature, which makes q
    even for all practical purposes; what the paper means by it is not known, so tau is to be tuned.

    Args:
        tau: temperature, > 0; large makes all shares equal.
    """

    title: ClassVar[str] = "CurES, sampling by the deviation of success"
    paper: ClassVar[Paper | None] = Paper(
        "2510.01037", "CurES: From Gradient Analysis to Efficient Curriculum Learning for Reasoning LLMs", 2025
    )

    tau: float = 0.1

    def __post_init__(self) -> None:
        require(self.tau > 0, f"tau must be > 0, found {self.tau}")

    def open(self, arms: Sequence[Arm], context: Context) -> CuresLessons:
        """Return the lessons."""
        return CuresLessons(self, all(arm.size == 1 for arm in arms))


@dataclass
class CuresLessons(Stateless):
    """Remember nothing: what is known lies in the estimates."""

    spec: Cures
    single: bool

    @property
    def sets(self) -> bool:
        """Whether arms are single questions, which are drawn without replacement."""
        return self.single

    def weights(self, rates: FloatArray) -> FloatArray:
        """Return q, (arms,), summing to 1."""
        known = np.where(np.isnan(rates), 0.5, rates)
        return softmax(np.sqrt(known * (1 - known)), self.spec.tau)

    def shares(self, asking: Asking) -> FloatArray:
        """Return q, or the shares to which drawing by q without replacement leads."""
        weights = self.weights(asking.rates)
        return expected_without(weights, asking.count) if self.single else weights

    def choose(self, asking: Asking) -> IntArray:
        """Return arms drawn by q."""
        return (drawn_without if self.single else drawn)(self.weights(asking.rates), asking)
