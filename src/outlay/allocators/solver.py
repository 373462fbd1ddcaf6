"""The integer solver under every allocator: largest remainder under bounds, and greedy on marginal gain."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import numpy as np

from outlay.allocators.base import Bound, bounds
from outlay.arms import FloatArray, IntArray


def largest_remainder(weights: FloatArray, total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
    """Return whole numbers in proportion to ``weights`` that sum to ``total`` and lie within the bounds.

    The proportional real-valued division under the bounds is c_i = clip(s w_i, low_i, high_i) with the one s at which it sums to the total;
    it is rounded down, and what is missing goes to the largest remainders, among equal ones to the larger weight, then to the first.
    Where weights are 0 for all who could get more, what is left is divided evenly among them. Everything is reckoned in whole numbers,
    so nothing is lost to rounding however far apart the weights lie.

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
    least, most, whole = lows.tolist(), highs.tolist(), _whole(weights)
    counts = list(least)
    if sum(most[i] if weight else least[i] for i, weight in enumerate(whole)) < total:
        # all with weight are at their upper bound: the rest is for those without
        counts = [most[i] if weight else least[i] for i, weight in enumerate(whole)]
        whole = [0 if weight else 1 for weight in whole]
    free = [i for i, weight in enumerate(whole) if weight]
    left = total - sum(counts[i] for i, weight in enumerate(whole) if not weight)
    mass = sum(whole)
    while True:  # shares are left * whole / mass; those outside a bound are pinned to it, the side first that is further out in sum
        under = [i for i in free if left * whole[i] < least[i] * mass]
        over = [i for i in free if left * whole[i] > most[i] * mass]
        lacking = sum(least[i] * mass - left * whole[i] for i in under)
        excess = sum(left * whole[i] - most[i] * mass for i in over)
        pinned, bound = (under, least) if lacking >= excess else (over, most)
        if not pinned:
            break
        for i in pinned:
            counts[i] = bound[i]
        left -= sum(bound[i] for i in pinned)
        mass -= sum(whole[i] for i in pinned)
        gone = set(pinned)
        free = [i for i in free if i not in gone]
    remainders = {}
    for i in free:
        counts[i], remainders[i] = divmod(left * whole[i], mass)
    missing = left - sum(counts[i] for i in free)
    for i in sorted(free, key=lambda i: (-remainders[i], -whole[i], i))[:missing]:
        counts[i] += 1
    return np.array(counts, np.int64)


def _whole(weights: FloatArray) -> list[int]:
    """Return the weights times one power of two that makes them whole; exact."""
    parts = [math.frexp(weight) for weight in weights.tolist()]
    smallest = min((exponent for mantissa, exponent in parts if mantissa), default=0)
    return [int(mantissa * 2**53) << (exponent - smallest) if mantissa else 0 for mantissa, exponent in parts]


def greedy(gain: Callable[[int, int], float], claimants: int, total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
    """Return the division that maximises sum_i V_i(n_i) for concave V_i: unit after unit goes where it gains most, which is exact.

    Among equal gains it goes to whom has least, then to the first, so that equal claimants get the same within one.

    Args:
        gain: V_i(n + 1) - V_i(n) of claimant i at n, not rising in n.
        claimants: how many there are.
        total: what is divided, >= 0.
        low: least that each gets.
        high: most that each gets; None for no bound.

    Raises:
        InputError: when no division lies within the bounds.
        ValueError: for a gain that is no number.
    """
    lows, highs = bounds(claimants, total, low, high)
    counts, most = lows.tolist(), highs.tolist()

    def offer(i: int) -> tuple[float, int, int]:
        gained = gain(i, counts[i])
        if math.isnan(gained):
            raise ValueError(f"the gain of claimant {i} at {counts[i]} is no number")
        return -gained, counts[i], i

    heap = [offer(i) for i in range(claimants) if counts[i] < most[i]]
    heapq.heapify(heap)
    for _ in range(total - sum(counts)):
        i = heap[0][2]
        counts[i] += 1
        if counts[i] < most[i]:
            heapq.heapreplace(heap, offer(i))
        else:
            heapq.heappop(heap)
    return np.array(counts, np.int64)
