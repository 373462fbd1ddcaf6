"""The integer solver under every allocator: largest remainder under bounds, and greedy on marginal gain."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np

from outlay.allocators.base import Bound, bounds
from outlay.arms import FloatArray, IntArray


def largest_remainder(weights: FloatArray, total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
    """Return whole numbers in proportion to ``weights`` that sum to ``total`` and lie within the bounds.

    The proportional real-valued division under the bounds is c_i = clip(s w_i, low_i, high_i) with the one s at which it sums to the total;
    it is rounded down, and what is missing goes to the largest remainders (to the first among equals). Where weights are 0 for all who
    could get more, what is left is divided evenly among them.

    Args:
        weights: (claimants,), finite and >= 0.
        total: what is divided, >= 0.
        low: least that each gets.
        high: most that each gets; None for no bound.

    Raises:
        InputError: when no division lies within the bounds.
        ValueError: for weights that are negative or not finite.
    """
    weights = np.asarray(weights, np.float64)
    if not np.all(np.isfinite(weights)) or np.any(weights < 0):
        raise ValueError(f"weights must be finite and >= 0, found {weights}")
    lows, highs = bounds(len(weights), total, low, high)
    if not len(weights):
        return lows
    scaled = weights / weights.max() if weights.max() > 0 else weights
    shares = _clipped(scaled, total, lows, highs)
    if shares is None:  # those with weight are at their bound: the rest goes to those without
        held = np.where(scaled > 0, highs, lows)
        free = np.where(scaled > 0, 0.0, 1.0)
        lows, highs = np.where(scaled > 0, highs, lows), np.where(scaled > 0, held, highs)
        shares = _clipped(free, total, lows, highs)
        assert shares is not None
    counts = np.clip(np.floor(shares + 1e-9), lows, highs).astype(np.int64)
    missing = total - int(counts.sum())
    remainders = np.where(counts < highs, shares - counts, -np.inf)
    # ties closer than rounding go to the first
    order = np.lexsort((np.arange(len(counts)), -np.round(remainders, 9)))
    for claimant in order[:missing]:
        counts[claimant] += 1
    return counts


def _clipped(weights: FloatArray, total: int, lows: IntArray, highs: IntArray) -> FloatArray | None:
    """Return clip(s w, low, high) for the s at which it sums to ``total``; None when no s reaches it."""
    positive = weights > 0
    reach = float(np.where(positive, highs, lows).sum())
    if reach < total:
        return None
    edges = np.unique(np.concatenate([lows[positive] / weights[positive], highs[positive] / weights[positive], [0.0]]))

    def at(scale: float) -> FloatArray:
        return np.asarray(np.clip(scale * weights, lows, highs), np.float64)

    left, right = 0, len(edges) - 1
    while left < right:  # the first edge at which the total is reached
        middle = (left + right) // 2
        if float(at(float(edges[middle])).sum()) >= total:
            right = middle
        else:
            left = middle + 1
    upper = float(edges[left])
    lower = float(edges[left - 1]) if left else 0.0
    below, above = at(lower), at(upper)
    gap = float(above.sum() - below.sum())
    share = (total - float(below.sum())) / gap if gap > 0 else 0.0
    return np.asarray(below + share * (above - below), np.float64)


def greedy(gain: Callable[[int, int], float], claimants: int, total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
    """Return the division that maximises sum_i V_i(n_i) for concave V_i: unit after unit goes where it gains most, which is exact.

    Args:
        gain: V_i(n + 1) - V_i(n) of claimant i at n, not rising in n.
        claimants: how many there are.
        total: what is divided, >= 0.
        low: least that each gets.
        high: most that each gets; None for no bound.

    Raises:
        InputError: when no division lies within the bounds.
    """
    lows, highs = bounds(claimants, total, low, high)
    counts = lows.copy()
    heap = [(-gain(i, int(counts[i])), i) for i in range(claimants) if counts[i] < highs[i]]
    heapq.heapify(heap)
    for _ in range(total - int(counts.sum())):
        _, i = heapq.heappop(heap)
        counts[i] += 1
        if counts[i] < highs[i]:
            heapq.heappush(heap, (-gain(i, int(counts[i])), i))
    return counts
