"""CurES: answers where the gradient of a single one varies most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outlay.allocators.base import Bound, Claims, filled
from outlay.allocators.solver import largest_remainder
from outlay.arms import FloatArray, IntArray
from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class Cures:
    """n_i in proportion to sigma_i, the standard deviation of the gradient of one answer with the advantage r - p (see ``deviation``),
    which makes the variance of the batch's gradient, sum sigma_i^2 / n_i, smallest.

    The paper takes mean squares of norms. Only their means are known here, so that mean squares count as squared means, and sigma is
    sqrt(p q) (q g+ + p g-). With equal norms that is sqrt(p q). Unknown norms count as the mean of the known of the same kind, else as the mean
    of the other kind, else as equal; an unknown rate as 1/2. Questions at p = 0 and p = 1 get nothing until they are tried again.

    Args:
        probe: answers to every question before the division, > 0.
    """

    title: ClassVar[str] = "CurES: deviation of the gradient"
    paper: ClassVar[Paper | None] = Paper(
        "2510.01037", "CurES: From Gradient Analysis to Efficient Curriculum Learning for Reasoning LLMs", 2025
    )
    needs_norms: ClassVar[bool] = True

    probe: int = 4

    def __post_init__(self) -> None:
        require(self.probe > 0, f"probe must be > 0, found {self.probe}")

    def allocate(self, claims: Claims, total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
        """Return the division."""
        right, wrong = claims.right_norms, claims.wrong_norms
        if right is None or np.all(np.isnan(right)):
            right = filled(wrong, len(claims))
        if wrong is None or np.all(np.isnan(wrong)):
            wrong = filled(right, len(claims))
        rates = np.where(np.isnan(claims.rates), 0.5, claims.rates)
        return largest_remainder(deviation(rates, filled(right, len(claims)), filled(wrong, len(claims))), total, low=low, high=high)


def deviation(
    rates: FloatArray,
    right: FloatArray,
    wrong: FloatArray,
    right_squares: FloatArray | None = None,
    wrong_squares: FloatArray | None = None,
) -> FloatArray:
    """Return sigma with sigma^2 = p q^2 E[g+^2] + p^2 q E[g-^2] - p^2 q^2 (E[g+] - E[g-])^2 and q = 1 - p, (claimants,).

    Args:
        rates: success rates p, in [0, 1].
        right: mean norm of the gradient of a right answer's log likelihood, E[g+] >= 0.
        wrong: the same of wrong answers, E[g-].
        right_squares: mean square of the norms of right answers, E[g+^2]; None for the square of the mean.
        wrong_squares: the same of wrong answers.
    """
    p, q = rates, 1 - rates
    of_right = right**2 if right_squares is None else right_squares
    of_wrong = wrong**2 if wrong_squares is None else wrong_squares
    # the common factor p q is taken out, so that what is left is a variance plus a square and rounding does not make it negative
    inner = q * of_right + p * of_wrong - p * q * (right - wrong) ** 2
    return np.asarray(np.sqrt(p * q * np.maximum(inner, 0.0)), np.float64)
