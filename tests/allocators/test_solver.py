from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.allocators import Uniform, bounds, greedy, largest_remainder
from outlay.allocators.base import Claims, filled
from outlay.errors import InputError

ordinary = st.floats(0, 1e6)
wild = st.one_of(st.just(0.0), st.floats(0, 1.7e308), st.integers(-1070, 1020).map(lambda power: math.ldexp(1.0, power)))


@st.composite
def problems(draw, weight=wild, most=9):
    """Weights, a total and bounds that admit it."""
    weights = np.array(draw(st.lists(weight, min_size=1, max_size=most)))
    low = np.array(draw(st.lists(st.integers(0, 6), min_size=len(weights), max_size=len(weights))))
    high = low + np.array(draw(st.lists(st.integers(0, 20), min_size=len(weights), max_size=len(weights))))
    return weights, draw(st.integers(int(low.sum()), int(high.sum()))), low, high


@given(problems())
@settings(max_examples=300, deadline=None)
def test_the_sum_and_the_bounds_are_exact_for_weights_of_any_size(problem):
    weights, total, low, high = problem
    counts = largest_remainder(weights, total, low=low, high=high)
    assert counts.dtype == np.int64 and counts.sum() == total
    assert np.all(counts >= low) and np.all(counts <= high)


@given(problems())
@settings(max_examples=400, deadline=None)
def test_counts_are_the_clipped_proportional_shares_within_one(problem):
    weights, total, low, high = problem
    counts = largest_remainder(weights, total, low=low, high=high)
    exact = [Fraction(weight) for weight in weights]
    reach = sum(int(h if w else n) for w, n, h in zip(exact, low, high, strict=True))
    if reach < total:  # all with weight are full and the others even
        assert all(n == h for n, h, w in zip(counts, high, exact, strict=True) if w)
        exact = [Fraction(int(not w)) for w in exact]
        low = np.where(weights > 0, high, low)
    # between any two who could trade a unit: neither ratio is further from the other than a unit explains
    for i, j in itertools.permutations(range(len(counts)), 2):
        if exact[i] and exact[j] and counts[i] > low[i] and counts[j] < high[j]:
            assert (int(counts[i]) - 1) * exact[j] <= (int(counts[j]) + 1) * exact[i]


@given(problems(), st.randoms())
@settings(max_examples=300, deadline=None)
def test_another_order_gives_the_same_but_for_equal_claimants(problem, random):
    weights, total, low, high = problem
    order = list(range(len(weights)))
    random.shuffle(order)
    counts = largest_remainder(weights, total, low=low, high=high)
    shuffled = largest_remainder(weights[order], total, low=low[order], high=high[order])
    for place, i in enumerate(order):
        twins = [j for j in range(len(weights)) if weights[j] == weights[i]]
        if len(twins) == 1:
            assert shuffled[place] == counts[i]
        else:
            assert abs(shuffled[place] - counts[i]) <= 1


@given(st.lists(wild, min_size=1, max_size=12), st.integers(0, 500), st.integers(0, 3), st.integers(0, 40))
@settings(max_examples=500, deadline=None)
def test_a_larger_weight_never_gets_less_under_the_same_bounds(weights, total, low, room):
    high = max(low + room, -(-total // len(weights)))
    total = max(total, low * len(weights))
    high = max(high, -(-total // len(weights)))
    counts = largest_remainder(np.array(weights), total, low=low, high=high)
    for i, j in itertools.permutations(range(len(weights)), 2):
        if weights[i] > weights[j]:
            assert counts[i] >= counts[j]
        elif weights[i] == weights[j]:
            assert abs(counts[i] - counts[j]) <= 1 and (counts[i] >= counts[j] or j < i)


@given(problems(ordinary), st.integers(-200, 200))
@settings(max_examples=500, deadline=None)
def test_the_scale_of_the_weights_does_not_matter(problem, power):
    weights, total, low, high = problem
    scaled = np.ldexp(weights, power)
    if np.all((scaled > 1e-300) | (scaled == weights)):
        assert np.array_equal(largest_remainder(weights, total, low=low, high=high), largest_remainder(scaled, total, low=low, high=high))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=10), st.integers(1, 20), st.floats(1e-9, 1e9))
@settings(max_examples=400, deadline=None)
def test_shares_that_are_whole_are_given_as_they_are(parts, times, scale):
    if not sum(parts):
        parts = [1] * len(parts)
    counts = largest_remainder(np.array(parts) * scale, sum(parts) * times)
    assert counts.tolist() == [part * times for part in parts]


@given(problems(st.integers(0, 9).map(float), most=4))
@settings(max_examples=400, deadline=None)
def test_tiny_problems_are_solved_as_well_as_any_division(problem):
    """The clipped shares minimise sum (n - s w)^2 among bounded reals; the counts are the whole numbers next to them in sum of squares."""
    weights, total, low, high = problem
    if sum(np.where(weights > 0, high, low)) < total:
        return
    counts = largest_remainder(weights, total, low=low, high=high)
    shares = _clipped(weights, total, low, high)
    best = min(
        sum((n - s) ** 2 for n, s in zip(division, shares, strict=True))
        for division in itertools.product(*(range(int(n), int(h) + 1) for n, h in zip(low, high, strict=True)))
        if sum(division) == total
    )
    assert sum((int(n) - s) ** 2 for n, s in zip(counts, shares, strict=True)) == best


def _clipped(weights, total, low, high):
    """The exact water-filling, by trying every edge."""
    exact = [Fraction(w) for w in weights]
    edges = sorted({Fraction(int(b)) / w for bound in (low, high) for b, w in zip(bound, exact, strict=True) if w} | {Fraction(0)})

    def at(scale):
        return [min(max(scale * w, int(n)), int(h)) for w, n, h in zip(exact, low, high, strict=True)]

    for below, above in itertools.pairwise(edges):
        if sum(at(above)) >= total:
            gap = sum(at(above)) - sum(at(below))
            share = (total - sum(at(below))) / gap if gap else Fraction(0)
            return at(below + share * (above - below))
    return at(edges[-1])


def test_worked_by_hand():
    assert largest_remainder(np.array([5.0, 3.0, 1.0]), 4).tolist() == [2, 1, 1]  # 2.22, 1.33, 0.44
    assert largest_remainder(np.array([0.1, 0.2, 0.3]), 6).tolist() == [1, 2, 3]
    assert largest_remainder(np.array([1.0, 3.0]), 2).tolist() == [0, 2]  # 0.5 and 1.5: the larger weight
    assert largest_remainder(np.array([3.0, 1.0]), 2).tolist() == [2, 0]
    assert largest_remainder(np.ones(3), 5).tolist() == [2, 2, 1]
    assert largest_remainder(np.array([8.0, 1.0, 1.0]), 10, high=4).tolist() == [4, 3, 3]
    assert largest_remainder(np.array([8.0, 1.0, 1.0]), 10, low=2).tolist() == [6, 2, 2]
    assert largest_remainder(np.array([1.0, 0.0, 0.0]), 10, high=np.array([4, 9, 1])).tolist() == [4, 5, 1]
    assert largest_remainder(np.zeros(3), 7).tolist() == [3, 2, 2]
    assert largest_remainder(np.array([]), 0).tolist() == []


def test_weights_too_far_apart_for_floating_point():
    # the middle one has all that the first cannot take, though its weight is 1e-300 of it
    assert largest_remainder(np.array([1e300, 1.0, 1e-300]), 10, high=np.array([4, 9, 9])).tolist() == [4, 6, 0]
    assert largest_remainder(np.array([1e300, 1e-300, 0.0]), 10, high=np.array([4, 4, 9])).tolist() == [4, 4, 2]
    assert largest_remainder(np.array([5e-324, 5e-324]), 4, low=1).tolist() == [2, 2]
    assert largest_remainder(np.array([1.7e308, 1.7e308]), 4).tolist() == [2, 2]
    assert largest_remainder(np.array([1.0, 1.0, 1.0]), 10**15 + 1).tolist() == [333333333333334, 333333333333334, 333333333333333]


@pytest.mark.parametrize("weights", [[1.0, -1.0], [1.0, math.nan], [math.inf, 1.0]])
def test_weights_must_be_numbers_that_can_be_divided_by(weights):
    with pytest.raises(ValueError, match="finite and >= 0"):
        largest_remainder(np.array(weights), 3)


@pytest.mark.parametrize(
    ("total", "low", "high", "message"),
    [
        (3, 2, None, "between 4 and"),
        (9, 0, 4, "between 0 and 8"),
        (-1, 0, None, "cannot be divided"),
        (4, 3, 2, "0 <= low <= high"),
        (4, -1, None, "0 <= low <= high"),
        (4, np.array([0, 5]), np.array([9, 4]), "0 <= low <= high"),
        (4, np.array([0, 0, 0]), None, "one for each of 2"),
        (4, 0, np.array([[9, 9]]), "one for each of 2"),
        (4, 0.5, None, "whole number"),
    ],
)
def test_impossible_bounds_are_refused(total, low, high, message):
    for divide in (
        lambda: largest_remainder(np.ones(2), total, low=low, high=high),
        lambda: greedy(lambda i, n: 1.0, 2, total, low=low, high=high),
    ):
        with pytest.raises(InputError, match=message):
            divide()


def test_the_largest_whole_number_is_no_bound_and_none_are_no_claimants():
    largest = np.iinfo(np.int64).max
    assert largest_remainder(np.ones(4), 8, high=largest).tolist() == [2, 2, 2, 2]
    assert bounds(2, 5, 1, None)[1].tolist() == [5, 5]
    assert bounds(0, 0, 0, None)[0].tolist() == []
    with pytest.raises(InputError, match="among 0 claimants"):
        largest_remainder(np.array([]), 3)


def test_the_bounds_of_the_caller_stay_as_they_are():
    low, high = np.array([0, 1, 2]), np.array([5, 5, 5])
    weights = np.array([1.0, 0.0, 7.0])
    largest_remainder(weights, 9, low=low, high=high)
    greedy(lambda i, n: -n, 3, 9, low=low, high=high)
    assert (low.tolist(), high.tolist(), weights.tolist()) == ([0, 1, 2], [5, 5, 5], [1.0, 0.0, 7.0])


@st.composite
def concave(draw):
    """Gains that do not rise, a total and bounds."""
    claimants = draw(st.integers(1, 4))
    gains = [sorted(draw(st.lists(st.integers(-5, 9), min_size=12, max_size=12)), reverse=True) for _ in range(claimants)]
    low = np.array(draw(st.lists(st.integers(0, 3), min_size=claimants, max_size=claimants)))
    high = low + np.array(draw(st.lists(st.integers(0, 4), min_size=claimants, max_size=claimants)))
    return gains, draw(st.integers(int(low.sum()), int(high.sum()))), low, high


@given(concave())
@settings(max_examples=300, deadline=None)
def test_greedy_finds_the_best_of_all_divisions(problem):
    gains, total, low, high = problem
    counts = greedy(lambda i, n: gains[i][n], len(gains), total, low=low, high=high)
    assert counts.sum() == total and np.all(counts >= low) and np.all(counts <= high) and counts.dtype == np.int64

    def value(division):
        return sum(sum(gains[i][:n]) for i, n in enumerate(division))

    every = itertools.product(*(range(int(n), int(h) + 1) for n, h in zip(low, high, strict=True)))
    assert value(counts) == max(value(division) for division in every if sum(division) == total)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=8, unique=True), st.integers(0, 200), st.randoms())
@settings(max_examples=300, deadline=None)
def test_greedy_is_the_same_in_any_order(scales, total, random):
    order = list(range(len(scales)))
    random.shuffle(order)
    counts = greedy(lambda i, n: scales[i] / (n + 1.5), len(scales), total)
    shuffled = greedy(lambda i, n: scales[order[i]] / (n + 1.5), len(scales), total)
    assert np.abs(shuffled - counts[order]).max() <= 1 and sorted(shuffled) == sorted(counts)


def test_equal_gains_are_spread_and_gains_must_be_numbers():
    assert greedy(lambda i, n: 0.0, 3, 8).tolist() == [3, 3, 2]
    assert greedy(lambda i, n: math.inf, 3, 3).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="claimant 0 at 0 is no number"):
        greedy(lambda i, n: math.nan, 3, 8)


def test_unknown_values_take_the_mean_of_the_known():
    assert filled(np.array([1.0, np.nan, 4.0]), 3).tolist() == [1.0, 2.5, 4.0]
    assert filled(np.array([np.nan, np.nan]), 2).tolist() == [1.0, 1.0]
    assert filled(None, 2).tolist() == [1.0, 1.0]
    # 1 is lost beside 1e16 in one order and not in the other
    for order in ([1e16, 1.0, -1e16], [1e16, -1e16, 1.0], [1.0, 1e16, -1e16]):
        assert filled(np.array([*order, np.nan]), 4)[3] == 1 / 3


def test_uniform_divides_evenly():
    assert Uniform().allocate(Claims(np.array([0.1, np.nan, 1.0])), 8).tolist() == [3, 3, 2]
