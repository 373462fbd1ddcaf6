"""DART: trials until enough answers are right, so that hard questions are not left out of what is collected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outlay.allocators.base import Bound, Claims, filled
from outlay.allocators.solver import largest_remainder
from outlay.arms import FloatArray, IntArray
from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.schedules.base import require

_PAPER = Paper("2407.13690", "DART-Math: Difficulty-Aware Rejection Tuning for Mathematical Problem-Solving", 2024)


@dataclass(frozen=True)
class DartUniform:
    """Trials in proportion to min(target / p, most): every question is to end up with the same number of right answers.

    A question that nobody solved counts as ``most``; one that nobody tried as the mean of the others. Nobody gets more than ``most``
    where the total allows it.

    Args:
        target: right answers wanted of every question, > 0.
        most: trials after which a question is given up, > 0.
    """

    title: ClassVar[str] = "DART: as many right answers of each"
    paper: ClassVar[Paper | None] = _PAPER
    needs_norms: ClassVar[bool] = False
    probe: ClassVar[int] = 0

    target: int = 40
    most: int = 2048

    def __post_init__(self) -> None:
        require(self.target > 0, f"target must be > 0, found {self.target}")
        require(self.most > 0, f"most must be > 0, found {self.most}")

    def allocate(self, claims: Claims, total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
        """Return the trials of each."""
        return _divided(claims.rates, uniform_targets(claims.rates, self.target), self.most, total, low, high)


@dataclass(frozen=True)
class DartPropToDifficulty:
    """Trials in proportion to min(target_i / p_i, most), with the right answers wanted of each question in proportion to how hard it is:
    target_i = target (1 - p_i) / max (1 - p), at least ``least``.

    Unknown rates and ``most`` as in ``DartUniform``. The paper names no ``most`` of its own: more than 8000 are needed for nine tenths of the
    questions to reach their target.

    Args:
        target: right answers wanted of the hardest question, > 0.
        least: right answers wanted of the easiest, in [1, target].
        most: trials after which a question is given up, > 0.
    """

    title: ClassVar[str] = "DART: more right answers of the hard"
    paper: ClassVar[Paper | None] = _PAPER
    needs_norms: ClassVar[bool] = False
    probe: ClassVar[int] = 0

    target: int = 192
    least: int = 1
    most: int = 8192

    def __post_init__(self) -> None:
        require(self.target > 0, f"target must be > 0, found {self.target}")
        require(1 <= self.least <= self.target, f"least must lie in [1, target], found {self.least} with target {self.target}")
        require(self.most > 0, f"most must be > 0, found {self.most}")

    def allocate(self, claims: Claims, total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
        """Return the trials of each."""
        return _divided(claims.rates, difficulty_targets(claims.rates, self.target, self.least), self.most, total, low, high)


def uniform_targets(rates: FloatArray, target: int) -> FloatArray:
    """Return ``target`` right answers for each question, (questions,); nan where the rate is."""
    return np.where(np.isnan(rates), np.nan, float(target))


def difficulty_targets(rates: FloatArray, target: int, least: int = 1) -> FloatArray:
    """Return how many right answers are wanted of each question: target d / max d for d = 1 - p, rounded half up, at least ``least``.

    Args:
        rates: success rates p, in [0, 1]; nan where unknown, which stays nan.
        target: for the hardest question, > 0.
        least: for the easiest, >= 1.
    """
    failing = 1 - np.asarray(rates, np.float64)
    hardest = float(np.nanmax(failing)) if not np.all(np.isnan(failing)) else 0.0
    if hardest == 0:
        return np.where(np.isnan(failing), np.nan, float(least))
    return np.asarray(np.maximum(np.floor(target * (failing / hardest) + 0.5), least), np.float64)


def expected_trials(rates: FloatArray, targets: FloatArray, most: int) -> FloatArray:
    """Return min(target / p, most): how many trials each question is expected to take, the budget's price of its target; ``most`` at p = 0.

    Args:
        rates: success rates p, in [0, 1]; nan where unknown, which stays nan.
        targets: right answers wanted, (questions,).
        most: trials after which a question is given up, > 0.
    """
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.minimum(np.where(rates == 0, np.inf, targets / rates), most), np.float64)


def _divided(rates: FloatArray, targets: FloatArray, most: int, total: int, low: Bound, high: Bound | None) -> IntArray:
    trials = filled(expected_trials(rates, targets, most), len(rates))
    given_up = np.maximum(low, np.minimum(total if high is None else high, most))
    try:
        return largest_remainder(trials, total, low=low, high=np.asarray(given_up, np.int64))
    except InputError:  # more than all may take before they are given up
        return largest_remainder(trials, total, low=low, high=high)
