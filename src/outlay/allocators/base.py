"""The allocator seam: who gets how much of an integer total."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from outlay.arms import FloatArray, IntArray
from outlay.errors import InputError

#: one bound for all claimants, or one for each, (claimants,)
Bound = int | IntArray


@dataclass(frozen=True)
class Claims:
    """What is known of those among whom something is divided; each array is (claimants,).

    Args:
        rates: estimated success rate, in [0, 1]; nan where there is no ground for one.
        seen: judged answers that each rests on; None counts as none.
        right_norms: mean norm of the gradient of a right answer's log likelihood, >= 0; nan where unknown. None where nobody asked.
        wrong_norms: the same of wrong answers.
        sizes: how large each claimant is, >= 0: examples of a cluster, weights of a matrix. None where they have no size.
        costs: what one unit costs, > 0; None for equal costs.
    """

    rates: FloatArray
    seen: FloatArray | None = None
    right_norms: FloatArray | None = None
    wrong_norms: FloatArray | None = None
    sizes: FloatArray | None = None
    costs: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.rates)


@runtime_checkable
class Allocator(Protocol):
    """Divides a total. ``probe`` answers a question are generated before it divides the rest, so that it knows what it divides by: they count
    toward the total and are trained on. ``needs_norms`` asks for the norms of gradients, which take passes that are charged."""

    @property
    def probe(self) -> int:
        """Answers to every question before the division, >= 0."""
        ...

    needs_norms: ClassVar[bool]

    def allocate(self, claims: Claims, total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
        """Return how much each claimant gets, (claimants,): it sums to ``total`` and lies within the bounds. Nothing is random: equal claims
        are answered equally, and claimants in another order get the same in that order, but for ties, which go to the first.

        Args:
            claims: what is known of them.
            total: what is divided, >= 0.
            low: least that each gets.
            high: most that each gets; None for no bound.

        Raises:
            InputError: when no division lies within the bounds.
        """
        ...


def bounds(claimants: int, total: int, low: Bound, high: Bound | None) -> tuple[IntArray, IntArray]:
    """Return both bounds for every claimant, each (claimants,); none is above what there is to divide.

    Raises:
        InputError: when no division of the total lies within them, or there are not as many as claimants.
    """
    lows = _each(low, claimants, "low")
    highs = np.maximum(lows, total) if high is None else _each(high, claimants, "high")
    if np.any(lows < 0) or np.any(highs < lows):
        raise InputError(f"bounds must be 0 <= low <= high for every claimant, found low {low} and high {high}")
    # in Python's whole numbers, which do not overflow: "no bound" is often written as the largest number
    least, most = sum(lows.tolist()), sum(highs.tolist())
    if not least <= total <= most:
        raise InputError(
            f"{total} cannot be divided among {claimants} claimants within their bounds, which take between {least} and {most}"
        )
    return lows, np.minimum(highs, total)


def _each(bound: Bound, claimants: int, name: str) -> IntArray:
    array = np.asarray(bound)
    if array.dtype.kind not in "iu" or array.shape not in ((), (claimants,)):
        raise InputError(f"{name} is a whole number or one for each of {claimants} claimants, found {bound!r}")
    return np.broadcast_to(array.astype(np.int64), claimants).copy()


def filled(values: FloatArray | None, claimants: int) -> FloatArray:
    """Return ``values`` with the mean of the known ones in place of nan; ones where none is known. (claimants,)."""
    if values is None or np.all(np.isnan(values)):
        return np.ones(claimants)
    known = values[~np.isnan(values)]
    # fsum is the same in any order, so that no claimant's answer hangs on where the others stand
    return np.where(np.isnan(values), math.fsum(known.tolist()) / len(known), values)
