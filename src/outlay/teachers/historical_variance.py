"""Historical variance: learn from the few questions whose success has changed most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray
from outlay.catalog import Paper
from outlay.context import Context
from outlay.schedules.base import require
from outlay.teachers.lim import lim_scores
from outlay.teachers.measured import MeasuredLessons, best


@dataclass(frozen=True)
class HistoricalVariance:
    """Measure for a share of the budget, then fill every batch with the ``top`` arms of the largest score.

    The score is the standard deviation of an arm's mean success over its visits; or, as the released code offers too, how well it follows the
    mean curve (see LIM). In the paper a whole run measures and a second one learns from the base model; here both are parts of one stage. The
    paper learns from 1 to 16 questions.

    Args:
        top: arms that are kept, > 0.
        score: ``std`` or ``lim``.
        share: part of the stage's budget that is measured, in [0, 1].
        epochs: visits to every arm after which measuring ends early, > 0. The paper's number is not known to us; LIM's is taken.
    """

    title: ClassVar[str] = "One-shot RLVR, the largest historical variance"
    paper: ClassVar[Paper | None] = Paper(
        "2504.20571", "Reinforcement Learning for Reasoning in Large Language Models with One Training Example", 2025
    )

    top: int = 1
    score: Literal["std", "lim"] = "std"
    share: float = 0.3
    epochs: int = 21

    def __post_init__(self) -> None:
        require(self.top > 0, f"top must be > 0, found {self.top}")
        require(self.score in ("std", "lim"), f"score must be 'std' or 'lim', found {self.score!r}")
        require(0 <= self.share <= 1, f"share must be in [0, 1], found {self.share}")
        require(self.epochs > 0, f"epochs must be > 0, found {self.epochs}")

    def open(self, arms: Sequence[Arm], context: Context) -> HistoricalVarianceLessons:
        """Return the lessons."""
        return HistoricalVarianceLessons(self.share, self.epochs, len(arms), self)


@dataclass
class HistoricalVarianceLessons(MeasuredLessons):
    """Keep by score."""

    spec: HistoricalVariance

    def keep(self, history: FloatArray) -> IntArray:
        """Return the ``top`` arms."""
        return best((deviations if self.spec.score == "std" else lim_scores)(history), self.spec.top)


def deviations(history: FloatArray) -> FloatArray:
    """Return the standard deviation, with n, of every row of successes, (questions,); at most 1/2. Gaps (nan) are left out, and a row of nothing
    else gives nan.

    Args:
        history: mean success of every question by epoch, in [0, 1], (questions, epochs).
    """
    known = ~np.isnan(history)
    counts = known.sum(axis=1)
    least = np.maximum(counts, 1)
    mean = np.where(known, history, 0.0).sum(axis=1) / least
    squares = np.where(known, (history - mean[:, None]) ** 2, 0.0).sum(axis=1) / least
    return np.where(counts > 0, np.sqrt(squares), np.nan)
