"""Knapsack: answers where a group is likeliest to hold both right and wrong ones and has most to gain from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from outlay.allocators.base import Bound, Claims, bounds
from outlay.allocators.solver import greedy, largest_remainder
from outlay.arms import FloatArray, IntArray
from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class Knapsack:
    """The division that maximises sum V(p_i, n_i) over the questions with 0 < p < 1, V(p, n) = [1 - p^n - (1 - p)^n] p (1 - p)^2.

    The first factor is the chance that a group of n holds both right and wrong answers, the second the expected rise of p after one update.
    V is concave from n = 1 on, so that answer after answer to where it adds most is exact.

    1. Questions whose rate is unknown get the even share.
    2. The others get their least numbers.
    3. What n answers it takes for a mixed group is c_i; what is left beyond the sum of all c_i, each rounded down, goes evenly to questions that
       were never solved, or without any to all that are not strictly between (only with ``surplus``).
    4. The rest goes to the questions strictly between by V; without any, evenly to those never solved, or without any to all.
    5. What ``most`` keeps back is spread evenly over the same, then over those never solved, always solved and unknown.

    The method's own least and most numbers give way to the bounds and to what the total allows. Values are differences from the least
    number on; the published code counts V as a whole for the first extra answer.

    Args:
        least: answers to every question with 0 < p < 1, >= 1.
        least_failed: to every question with p = 0, >= 1.
        least_solved: to every question with p = 1, >= 1.
        most: answers to a question with 0 < p < 1, >= least.
        need: what counts as enough answers to a question: a mixed group with the chance ``confidence``,
            c = ln(1 - confidence) / ln(max(p, 1 - p)), or the ``expectation`` c = 1 / (p (1 - p)) - 1.
        confidence: in (0, 1).
        surplus: whether answers beyond that go to questions that were never solved; without it, sum V is as large as the least numbers allow.
    """

    title: ClassVar[str] = "Knapsack over the value of groups"
    paper: ClassVar[Paper | None] = Paper("2509.25849", "Knapsack RL: Unlocking Exploration of LLMs via Optimizing Budget Allocation", 2025)
    needs_norms: ClassVar[bool] = False
    probe: ClassVar[int] = 0

    least: int = 2
    least_failed: int = 2
    least_solved: int = 2
    most: int = 128
    need: Literal["confidence", "expectation"] = "confidence"
    confidence: float = 0.9
    surplus: bool = True

    def __post_init__(self) -> None:
        for name in ("least", "least_failed", "least_solved"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1, found {getattr(self, name)}")
        require(self.most >= self.least, f"most must be >= least, found {self.most} with least {self.least}")
        require(self.need in ("confidence", "expectation"), f"need must be confidence or expectation, found {self.need!r}")
        require(0 < self.confidence < 1, f"confidence must lie in (0, 1), found {self.confidence}")

    def allocate(self, claims: Claims, total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
        """Return the division."""
        rates = claims.rates
        lows, highs = bounds(len(rates), total, low, high)
        unknown, failed, solved = np.isnan(rates), rates == 0, rates == 1
        order = np.argsort(unknown, kind="stable")  # what cannot be divided evenly goes to known ones, wherever they stand
        counts = np.empty(len(rates), np.int64)
        counts[order] = largest_remainder(np.ones(len(rates)), total, low=lows[order], high=highs[order])
        between = ~(unknown | failed | solved)
        if not np.any(between | failed):
            return counts
        known = ~unknown
        rest = int(counts[known].sum())
        least = np.clip(np.where(failed, self.least_failed, np.where(solved, self.least_solved, self.least)), lows, highs)
        if int(least[known].sum()) > rest:
            counts[known] = largest_remainder(least[known].astype(np.float64), rest, low=lows[known], high=least[known])
            return counts
        counts[known] = least[known]
        rest -= int(least[known].sum())
        if np.any(between):
            if self.surplus:
                needed = sum(int(min(self.needed(p), self.most)) for p in rates[between].tolist())
                if needed < rest:
                    rest = needed + _spread(counts, failed if np.any(failed) else ~between, rest - needed, highs)
            rest = self._by_value(rates, counts, between, rest, highs)
        for who in (between, failed, solved, unknown):
            rest = _spread(counts, who, rest, highs)
        return counts

    def needed(self, rate: float) -> float:
        """Return how many answers it takes for a mixed group at a rate in (0, 1)."""
        if self.need == "expectation":
            return 1 / (rate * (1 - rate)) - 1
        likelier = math.log(rate) if rate > 0.5 else math.log1p(-rate)
        return math.log(1 - self.confidence) / likelier

    def _by_value(self, rates: FloatArray, counts: IntArray, who: NDArray[np.bool_], rest: int, highs: IntArray) -> int:
        """Add up to ``rest`` answers by what they are worth; return how many ``most`` keeps back."""
        had = counts[who]
        most = np.maximum(had, np.minimum(highs[who], self.most))
        units = min(rest, int((most - had).sum()))
        p = rates[who].tolist()
        gain_of_one = information(rates[who]).tolist()

        def gain(i: int, n: int) -> float:
            # V(p, n + 1) - V(p, n); subtracting two values would lose it to rounding where p is near 0 or 1
            right = p[i]
            wrong = 1 - right
            return float(gain_of_one[i] * (right**n * wrong + wrong**n * right)) if n else 0.0

        counts[who] = greedy(gain, len(p), int(had.sum()) + units, low=had, high=most)
        return rest - units


def information(rates: FloatArray) -> FloatArray:
    """Return p (1 - p)^2, the expected rise of p after one update to first order; largest at p = 1/3."""
    return np.asarray(rates * (1 - rates) ** 2, np.float64)


def value(p: FloatArray, n: IntArray) -> FloatArray:
    """Return V(p, n) = [1 - p^n - (1 - p)^n] p (1 - p)^2; 0 for n < 2, where no group can be mixed.

    Args:
        p: success rates, in [0, 1].
        n: answers to each, >= 0, of the same shape or one that fits it.
    """
    p, n = np.asarray(p, np.float64), np.asarray(n)
    return np.asarray(np.where(n < 2, 0.0, 1 - p**n - (1 - p) ** n) * information(p), np.float64)


def _spread(counts: IntArray, who: NDArray[np.bool_], rest: int, highs: IntArray) -> int:
    """Add ``rest`` evenly to the counts of those chosen, as far as there is room; return what is left."""
    room = highs[who] - counts[who]
    units = min(rest, int(room.sum()))
    counts[who] += largest_remainder(np.ones(len(room)), units, high=room)
    return rest - units
