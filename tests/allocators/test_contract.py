"""Every method keeps the contract, and every rule of it refuses what breaks it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import pytest

from outlay.allocators import METHODS, Claims, GroupCollection, Gvm, Knapsack, Neyman, Proportional, Uniform, largest_remainder
from outlay.errors import InputError
from outlay.testing import check_allocator


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_methods_keep_the_contract(method):
    check_allocator(method())


@pytest.mark.parametrize(
    "allocator",
    [
        Knapsack(surplus=False, most=4),
        Knapsack(need="expectation", least_failed=3, least_solved=1),
        Gvm(alpha=0.0, above=0.7, fewest=1.0),
        GroupCollection(0.5, worst=True),
    ],
    ids=repr,
)
def test_methods_keep_the_contract_with_other_fields(allocator):
    check_allocator(allocator)


TURNS = itertools.count()


@dataclass(frozen=True)
class Faulty:
    """Divides by rates, with one fault."""

    needs_norms: ClassVar[bool] = False
    probe: ClassVar[int] = 0

    fault: str = ""

    def allocate(self, claims: Claims, total: int, *, low: Any = 0, high: Any = None) -> Any:
        rates = np.nan_to_num(claims.rates, nan=0.5)
        if self.fault == "refuses nothing":
            try:
                return largest_remainder(rates, total, low=low, high=high)
            except InputError:
                return largest_remainder(rates, max(total, 0))
        counts = largest_remainder(rates, total, low=low, high=high)
        if self.fault == "spoils":
            claims.rates[:] = rates
        if self.fault == "random":
            # everything goes to another one at every call: chance alone might answer twice alike
            turn = np.arange(len(rates)) == next(TURNS) % max(1, len(rates))
            return largest_remainder(turn.astype(float), total, low=low, high=high)
        if self.fault == "global":
            np.random.random()
        if (
            self.fault == "one more first"
            and len(counts) > 1
            and low is not None
            and np.isscalar(low)
            and high is None
            and counts[-1] > low
        ):
            counts[0] += 1
            counts[-1] -= 1
        if self.fault == "remainder":
            even = np.full(len(rates), total // max(len(rates), 1))
            even[:1] += total - even.sum()
            return even if high is None and np.all(even >= low) else counts
        if self.fault == "all to one" and len(set(rates.tolist())) == 1:
            upper = np.minimum(total if high is None else high, total) * np.ones(len(rates), np.int64)
            return largest_remainder(np.arange(len(rates))[::-1] ** 2.0, total, low=low, high=upper)
        if self.fault == "divides by nothing":
            return largest_remainder(1 / claims.rates, total, low=low, high=high)
        return {
            "floats": lambda: counts.astype(float),
            "short": lambda: counts[1:],
            "sum": lambda: counts + (np.arange(len(counts)) == 0),
            "low": lambda: largest_remainder(rates, total, high=high),
            "high": lambda: largest_remainder(rates, total, low=low),
        }.get(self.fault, lambda: counts)()


def test_the_same_without_a_fault_keeps_it():
    check_allocator(Faulty())


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("floats", "counts are int64"),
        ("short", "one count for each claimant"),
        ("sum", "counts sum to the total"),
        ("low", "nobody gets less than low"),
        ("high", "nobody gets more than high"),
        ("random", "the same claims are divided the same"),
        ("global", "never from a global generator"),
        ("spoils", "left as they are"),
        ("one more first", "claimants in another order"),
        ("remainder", "claimants in another order"),
        ("refuses nothing", "refused with InputError"),
    ],
)
def test_a_fault_is_named(fault, rule):
    with pytest.raises(AssertionError, match=rule):
        check_allocator(Faulty(fault))


def test_arithmetic_warnings_and_unknown_rates_are_not_passed_on():
    with pytest.raises((FloatingPointError, ValueError)):
        check_allocator(Faulty("divides by nothing"))


def test_what_is_no_allocator_is_refused():
    class Negative(Uniform):
        probe = -1

    class Undecided(Uniform):
        needs_norms = None

    for thing, rule in ((object(), "has allocate"), (Negative(), "probe is"), (Undecided(), "needs_norms is")):
        with pytest.raises(AssertionError, match=rule):
            check_allocator(thing)


def test_unequal_answers_to_equal_claims_are_named():
    with pytest.raises(AssertionError, match="equal claims are answered equally"):
        check_allocator(Faulty("all to one"), [Claims(np.array([0.1, 0.9]))])


def test_claims_of_the_callers_own_are_checked():
    with pytest.raises(AssertionError, match="left as they are"):
        check_allocator(Faulty("spoils"), [Claims(np.array([0.5, np.nan]))])


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_batch_of_256_is_divided_in_milliseconds(method):
    draw = np.random.default_rng(0)
    claims = Claims(draw.beta(0.3, 0.6, 256), None, *draw.lognormal(size=(4, 256)))
    best = 1.0
    for _ in range(5):
        start = perf_counter()
        method().allocate(claims, 2048)
        best = min(best, perf_counter() - start)
    assert best < 0.1  # 0.3 ms, and 2 ms for the knapsack, on one idle core


# ---- the same allocators divide anything -----------------------------------------------------------------------------------------------


def test_rank_over_matrices():
    """Rank 64 by how many weights each matrix holds: at least 1, at most its smaller side."""
    rows, columns = np.array([64, 64, 256, 8]), np.array([64, 256, 64, 4])
    nothing = np.full(4, np.nan)
    ranks = Proportional().allocate(Claims(nothing, sizes=1.0 * rows * columns), 64, low=1, high=np.minimum(rows, columns))
    assert ranks.tolist() == [7, 28, 28, 1]  # 4096 : 16384 : 16384 of 63, as 32 would have been 0.06


def test_examples_over_clusters():
    """13 examples by size times spread; nobody can give more than it holds."""
    sizes = np.array([100.0, 100.0, 2.0])
    counts = Neyman().allocate(Claims(np.array([0.5, 0.1, 0.5]), sizes=sizes), 13, high=sizes.astype(np.int64))
    assert counts.tolist() == [8, 5, 0]  # 0.5 : 0.3 : 0.01
    full = Neyman().allocate(Claims(np.array([0.5, 0.1, 0.5]), sizes=sizes), 150, high=sizes.astype(np.int64))
    assert full.tolist() == [93, 55, 2]  # 92.6, 55.6 and 1.9


def test_money_over_stages():
    """300 dollars over three stages: by what each needs, with a floor for the first and a ceiling for the last."""
    nothing = np.full(3, np.nan)
    low, high = np.array([60, 0, 0]), np.array([300, 300, 80])
    spent = Proportional().allocate(Claims(nothing, sizes=np.array([10.0, 20.0, 30.0])), 300, low=low, high=high)
    assert spent.tolist() == [73, 147, 80]
    dear = Neyman().allocate(Claims(nothing, sizes=np.ones(3), costs=np.array([1.0, 4.0, 16.0])), 70)
    assert dear.tolist() == [40, 20, 10]
