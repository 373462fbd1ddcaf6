"""The contract of allocators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from outlay.allocators.base import Allocator, Bound, Claims
from outlay.arms import IntArray
from outlay.errors import InputError
from outlay.rng import numpy_generator
from outlay.testing.common import global_generators_untouched, hold
from outlay.testing.plain import _check_rebuilt


def check_allocator(allocator: Allocator, claims_sets: Sequence[Claims] | None = None) -> None:
    """Check the allocator seam: whole numbers that sum to the total within the bounds, the same for the same claims and in any order.

    Claims are divided at several totals, without bounds, with one bound for all, with one for each claimant and with no choice left. Equal
    claims must be answered within one. Divisions that no bounds allow must be refused.

    Args:
        allocator: any object with ``allocate``, ``probe`` and ``needs_norms``.
        claims_sets: what is divided among; None for made-up claims: with and without each column, with unknown rates, and with rates of 0 and 1.

    Raises:
        AssertionError: naming the rule, the claims, the total, the bounds and the counts.
    """
    name = repr(allocator)
    hold(isinstance(allocator, Allocator), "an allocator has allocate, probe and needs_norms", f"found {name}")
    hold(isinstance(allocator.probe, int) and allocator.probe >= 0, "probe is a whole number >= 0", f"{name} has {allocator.probe!r}")
    hold(isinstance(allocator.needs_norms, bool), "needs_norms is true or false", f"{name} has {allocator.needs_norms!r}")
    _check_rebuilt(allocator)
    # extremes may vanish on the way, but a division by zero or a lost number is not for the caller to hear of
    with global_generators_untouched(name), np.errstate(all="raise", under="ignore"):
        for claims in _made_up() if claims_sets is None else claims_sets:
            for total in sorted({0, 1, len(claims), 2 * len(claims) + 1, 8 * len(claims), 50 * len(claims) + 3}):
                for low, high in _bounds(len(claims), total):
                    _check_division(allocator, claims, total, low, high)
            _check_refusals(allocator, claims)
        for claims in _alike(6):
            for total in (0, 5, 6, 13, 48, 1000):
                counts = allocator.allocate(claims, total)
                even = int(counts.max() - counts.min()) <= 1
                hold(even, "equal claims are answered equally, within one", f"{name} gave {counts.tolist()} of {total} for {claims}")
        nobody = allocator.allocate(Claims(np.zeros(0)), 0)
    hold(nobody.shape == (0,), "nobody is given nothing", f"{name} gave {nobody!r}")


def _check_division(allocator: Allocator, claims: Claims, total: int, low: Bound, high: Bound | None) -> None:
    given = [np.array(one) for one in (*_columns(claims), low, high) if one is not None]
    counts = allocator.allocate(claims, total, low=low, high=high)

    def held(condition: bool, rule: str, other: str = "") -> None:
        if not condition:  # what was seen takes longer to write than all checks take
            hold(False, rule, f"{allocator!r} gave {counts!r} of {total} with low {low} and high {high} for {claims}{other}")

    held(isinstance(counts, np.ndarray) and counts.dtype == np.int64, "counts are int64")
    held(counts.shape == (len(claims),), "there is one count for each claimant")
    held(int(counts.sum()) == total, "counts sum to the total")
    held(bool(np.all(counts >= low)), "nobody gets less than low")
    held(high is None or bool(np.all(counts <= high)), "nobody gets more than high")
    again = allocator.allocate(claims, total, low=low, high=high)
    held(np.array_equal(counts, again), "the same claims are divided the same", f" and then {again!r}")
    now = [np.array(one) for one in (*_columns(claims), low, high) if one is not None]
    unchanged = all(np.array_equal(one, other, equal_nan=True) for one, other in zip(given, now, strict=True))
    held(unchanged, "claims and bounds are left as they are")
    for shift in range(2):
        order = numpy_generator(shift, "contracts/orders").permutation(len(claims))
        upper = None if high is None else _reordered(high, order)
        mixed = allocator.allocate(_taken(claims, order), total, low=_reordered(low, order), high=upper)
        # only a tie may make a difference: it is one unit, and it goes to whom has moved forward
        tied = bool(np.all(np.abs(mixed - counts[order]) <= 1)) and _by_place(counts, mixed, order)
        if isinstance(low, int) and not isinstance(high, np.ndarray):
            tied = tied and np.array_equal(np.sort(mixed), np.sort(counts))
        rule = "claimants in another order get the same, but for ties, which go to the first"
        held(tied, rule, f", and {mixed!r} in the order {order}")


def _by_place(counts: IntArray, mixed: IntArray, order: IntArray) -> bool:
    """Whether whoever gained by the other order moved forward past somebody who lost by it."""
    if np.array_equal(mixed, counts[order]):
        return True
    change = np.empty(len(counts), np.int64)
    place = np.empty(len(counts), np.int64)
    change[order] = mixed - counts[order]
    place[order] = np.arange(len(counts))
    won, lost = np.flatnonzero(change > 0), np.flatnonzero(change < 0)
    return all(np.any((lost < i) & (place[lost] > place[i])) for i in won)


def _check_refusals(allocator: Allocator, claims: Claims) -> None:
    many = len(claims)
    impossible: list[tuple[int, Bound, Bound | None]] = [(2 * many - 1, 2, None), (2 * many + 1, 0, 2), (-1, 0, None), (3 * many, 4, 3)]
    impossible.append((3 * many, np.full(many, -1), None))
    for total, low, high in impossible:
        seen = f"{allocator!r} took {total} with low {low} and high {high} for {many} claimants"
        try:
            counts = allocator.allocate(claims, total, low=low, high=high)
        except InputError:
            continue
        raise AssertionError(f"a division that the bounds do not allow is refused with InputError; {seen} and gave {counts!r}")


def _bounds(claimants: int, total: int) -> list[tuple[Bound, Bound | None]]:
    draw = numpy_generator(total, "contracts/bounds")
    share = total // claimants
    tight = np.full(claimants, share)
    tight[: total - share * claimants] += 1
    low = draw.integers(0, share + 1, claimants)
    high = tight + draw.integers(0, 5, claimants)
    return [
        (share // 2, None),
        (0, 2 * share + 1),
        (min(1, share), share + 2),
        (low, None),
        (0, high),
        (low, np.maximum(low, high)),
        (tight, tight),
    ]


def _made_up() -> list[Claims]:
    draw = numpy_generator(0, "contracts/claims")
    many = 9
    rates, sizes = draw.uniform(0.02, 0.98, many), draw.lognormal(3, 1, many)
    right, wrong, costs = draw.lognormal(0, 0.7, (3, many))
    whole = Claims(rates, np.full(many, 16.0), right, wrong, sizes, costs)
    edges = np.array([0.0, 1.0, 0.0, 0.5, 0.25, 1.0, 0.9, 0.125, 1 / 3])
    third, fourth = np.arange(many) % 3 == 0, np.arange(many) % 4 == 1
    return [
        whole,
        Claims(rates),
        replace(whole, right_norms=None, costs=None),
        replace(whole, wrong_norms=None, sizes=None),
        replace(whole, rates=np.where(third, np.nan, rates), right_norms=np.where(fourth, np.nan, right)),
        replace(whole, rates=np.full(many, np.nan), right_norms=np.full(many, np.nan), wrong_norms=np.full(many, np.nan)),
        replace(whole, rates=edges),
        replace(whole, rates=np.where(fourth, np.nan, edges)),
        replace(whole, rates=np.zeros(many)),
        replace(whole, rates=np.ones(many)),
        replace(whole, rates=np.array([1e-300, 1e-12, 1 - 1e-12, 5e-324, 1e-6, 0.5, 0.0, 1.0, np.nan])),
        replace(whole, sizes=np.zeros(many), right_norms=np.zeros(many), wrong_norms=np.zeros(many)),
        _taken(whole, np.arange(1)),
    ]


def _alike(many: int) -> list[Claims]:
    found = []
    for rate in (0.0, 5e-324, 0.1, 0.5, 0.9, 1.0, np.nan):
        found.append(Claims(np.full(many, rate)))
        found.append(Claims(np.full(many, rate), *(np.full(many, value) for value in (8.0, 1.3, 0.7, 20.0, 3.0))))
    return found


def _columns(claims: Claims) -> list[np.ndarray | None]:
    return [getattr(claims, column.name) for column in fields(claims)]


def _taken(claims: Claims, order: IntArray) -> Claims:
    return Claims(*(None if column is None else column[order] for column in _columns(claims)))  # type: ignore[arg-type]


def _reordered(bound: Bound, order: IntArray) -> Bound:
    return bound[order] if isinstance(bound, np.ndarray) else bound
