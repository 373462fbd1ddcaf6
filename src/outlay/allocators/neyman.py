"""Neyman: by size times spread, the division at which a stratified mean is known best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outlay.allocators.base import Bound, Claims
from outlay.allocators.solver import largest_remainder
from outlay.arms import FloatArray, IntArray
from outlay.catalog import Paper


@dataclass(frozen=True)
class Neyman:
    """n_i in proportion to size_i spread_i / sqrt(cost_i) with spread = sqrt(p (1 - p)), which makes the variance of the mean success over
    all, sum (size_i spread_i)^2 / n_i, smallest for what is spent (Neyman 1934).

    An unknown rate counts as 1/2, the largest spread. Without sizes or costs they count as equal. Who always or never succeeds gets
    no more than its bound, unless all others are full.
    """

    title: ClassVar[str] = "Neyman: size times spread"
    paper: ClassVar[Paper | None] = None
    needs_norms: ClassVar[bool] = False
    probe: ClassVar[int] = 0

    def allocate(self, claims: Claims, total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
        """Return the division."""
        weights = spread(claims.rates)
        if claims.sizes is not None:
            weights = weights * claims.sizes
        if claims.costs is not None:
            weights = weights / np.sqrt(claims.costs)
        return largest_remainder(weights, total, low=low, high=high)


def spread(rates: FloatArray) -> FloatArray:
    """Return sqrt(p (1 - p)), the standard deviation of one judged answer; 1/2 where the rate is nan."""
    known = np.where(np.isnan(rates), 0.5, rates)
    return np.asarray(np.sqrt(known * (1 - known)), np.float64)
