"""Ranking curricula: what a heuristic finds hard counts less at first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outlay.arms import Arm, FloatArray, IntArray
from outlay.catalog import Paper
from outlay.context import Context
from outlay.schedules.base import require
from outlay.teachers.base import Asking, Stateless, difficulties, drawn

#: keeps the hardest from never being drawn
FLOOR = 1e-8


@dataclass(frozen=True)
class Ranking:
    """Draws arms in proportion to W = D (1 - e / m) + e / m while e < m, and evenly afterwards: D is an arm's ease, e the progress, m ``until``.

    The paper weights each example's loss by W. Sampling in proportion to W does the same on average, at no cost for what counts little.
    Ease is that of difficulty normalised over the arms, (max - d) / (max - min); 1 for all where all are alike. The functions of this module
    give the paper's eases of answers from what a first ranker says of them.

    Args:
        until: share of the budget at which all count alike, in (0, 1]. The paper has 20 epochs of a run that stops early, so half is chosen.
        anti: whether the hard come first, D being 1 - D: a control.
    """

    title: ClassVar[str] = "Ranking curricula"
    paper: ClassVar[Paper | None] = Paper("2004.14269", "Training Curricula for Open Domain Answer Re-Ranking", 2020)

    until: float = 0.5
    anti: bool = False

    def __post_init__(self) -> None:
        require(0 < self.until <= 1, f"until must be in (0, 1], found {self.until}")

    def open(self, arms: Sequence[Arm], context: Context) -> RankingLessons:
        """Return the lessons.

        Raises:
            InputError: when an arm has no difficulty.
        """
        found = difficulties(arms, "ranking")
        width = found.max() - found.min()
        ease = (found.max() - found) / width if width > 0 else np.ones(len(arms))
        return RankingLessons(1 - ease if self.anti else ease, self.until)


@dataclass
class RankingLessons(Stateless):
    """Know every arm's ease."""

    ease: FloatArray
    until: float

    def shares(self, asking: Asking) -> FloatArray:
        """Return the weights, normalised."""
        weights = weighted(self.ease, asking.progress, self.until)
        return weights / weights.sum()

    def choose(self, asking: Asking) -> IntArray:
        """Return arms drawn by their weights."""
        return drawn(self.shares(asking), asking)


def weighted(ease: FloatArray, spent: float, until: float) -> FloatArray:
    """Return W = D (1 - e / m) + e / m + 1e-8 while e < m, and 1 + 1e-8 afterwards.

    Args:
        ease: D, each in [0, 1].
        spent: e, epochs or a share of the budget, >= 0.
        until: m, in the same unit, > 0.
    """
    way = min(spent / until, 1.0)
    return np.asarray(ease, np.float64) * (1 - way) + way + FLOOR


def reciprocal_rank(ranks: FloatArray) -> FloatArray:
    """Return 1 / rank of every answer, ranks starting at 1; those the first ranker did not find (nan) count as rank 1000."""
    return np.asarray(1 / np.where(np.isnan(ranks), 1000.0, ranks), np.float64)


def normalised_score(scores: FloatArray) -> FloatArray:
    """Return (s - min) / (max - min) of one query's scores; 1 for all where all are equal."""
    width = scores.max() - scores.min()
    return np.asarray((scores - scores.min()) / width if width > 0 else np.ones(len(scores)), np.float64)


def score_quantile(scores: FloatArray) -> FloatArray:
    """Return the distribution function, at each of one query's scores, of their kernel density estimate; 1/2 for all where all are equal.

    The kernels are normal, their deviation that of the scores (taken with n - 1) times n^(-1/5).
    """
    width = float(np.std(scores, ddof=1)) * len(scores) ** -0.2 if len(scores) > 1 else 0.0
    if width == 0:
        return np.full(len(scores), 0.5)
    apart = (scores[:, None] - scores[None]) / (width * math.sqrt(2))
    return np.asarray((1 + np.vectorize(math.erf, otypes=[float])(apart)).mean(axis=1) / 2, np.float64)


def pointwise_ease(values: FloatArray, relevant: Sequence[bool]) -> FloatArray:
    """Return an answer's value where it is relevant, and 1 - value where it is not."""
    return np.asarray(np.where(np.asarray(relevant, bool), values, 1 - values), np.float64)


def pairwise_ease(right: float, wrong: FloatArray) -> float:
    """Return the least (v(right) - v(wrong) + 1) / 2 over the wrong answers that a right one is held against."""
    return float((right - np.max(wrong) + 1) / 2)
