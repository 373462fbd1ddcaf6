"""LIM: learn from the questions whose success follows the mean curve of learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray
from outlay.catalog import Paper
from outlay.context import Context
from outlay.schedules.base import require
from outlay.teachers.measured import MeasuredLessons, best


@dataclass(frozen=True)
class Lim:
    """Measure for a share of the budget, then keep the arms with s >= theta, or the ``top`` by s:
    s(i) = 1 - sum over k of (r(i, k) - m(k))^2 / sum over k of (1 - m(k))^2, m the mean curve.

    r(i, k) is the mean success of arm i at its k-th visit. In the paper a whole run measures and a second one learns from the base model on what
    was kept; here both are parts of one stage, so the measuring is paid from the same budget. The paper measures K = 21 epochs.

    Args:
        share: part of the stage's budget that is measured, in [0, 1].
        theta: least score that is kept; when no arm has it, those with the largest score are.
        top: arms that are kept instead, by score, > 0; None goes by ``theta``.
        epochs: visits to every arm after which measuring ends early, > 0.
    """

    title: ClassVar[str] = "LIM, alignment with the mean curve of learning"
    paper: ClassVar[Paper | None] = Paper("2502.11886", "LIMR: Less is More for RL Scaling", 2025)

    share: float = 0.3
    theta: float = 0.6
    top: int | None = None
    epochs: int = 21

    def __post_init__(self) -> None:
        require(0 <= self.share <= 1, f"share must be in [0, 1], found {self.share}")
        require(self.theta <= 1, f"theta must be <= 1, the largest score, found {self.theta}")
        require(self.top is None or self.top > 0, f"top must be > 0 or None, found {self.top}")
        require(self.epochs > 0, f"epochs must be > 0, found {self.epochs}")

    def open(self, arms: Sequence[Arm], context: Context) -> LimLessons:
        """Return the lessons."""
        return LimLessons(self.share, self.epochs, len(arms), self)


@dataclass
class LimLessons(MeasuredLessons):
    """Keep by score."""

    spec: Lim

    def keep(self, history: FloatArray) -> IntArray:
        """Return the ``top`` arms, or those with a score of ``theta`` at least."""
        scores = lim_scores(history)
        if self.spec.top is not None:
            return best(scores, self.spec.top)
        if np.all(np.isnan(scores)):
            return np.zeros(0, np.int64)
        return np.flatnonzero(scores >= min(self.spec.theta, float(np.nanmax(scores)))).astype(np.int64)


def lim_scores(history: FloatArray, epochs: int | None = None) -> FloatArray:
    """Return the score of every question, (questions,), at most 1; nan for those that are dropped.

    1 for a question that follows the mean curve, 0 for one that is always solved, below 0 for most that never are. A gap takes the value of
    the next epoch where that one is none itself, so that single gaps are filled; who has a gap left is dropped, and does not count in the mean
    curve. Where everything is always solved the score is not defined: all get 1.

    Args:
        history: mean success of every question by epoch, in [0, 1], (questions, epochs); nan where it was not asked.
        epochs: how many of the first epochs count, > 0; None for all. One more may fill a gap.
    """
    filled = np.array(history, np.float64)
    if filled.shape[1] > 1:
        # the next value as it was measured, not as it was filled
        filled[:, :-1] = np.where(np.isnan(filled[:, :-1]), filled[:, 1:], filled[:, :-1])
    filled = filled[:, :epochs]
    whole = ~np.any(np.isnan(filled), axis=1)
    scores = np.full(len(filled), np.nan)
    if np.any(whole):
        mean = filled[whole].mean(axis=0)
        best_possible = float(np.sum((1 - mean) ** 2))
        scores[whole] = 1 - np.sum((filled[whole] - mean) ** 2, axis=1) / best_possible if best_possible > 0 else 1.0
    return scores
