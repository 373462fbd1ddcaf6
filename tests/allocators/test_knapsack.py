from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.allocators import Claims, Knapsack, Uniform
from outlay.allocators.knapsack import information, value

rate = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, math.nan, 0.5]))


def divide(rates, total, allocator=Knapsack(), **bounds):
    return allocator.allocate(Claims(np.array(rates, float)), total, **bounds).tolist()


def test_the_value_of_a_group():
    assert value(np.array(0.5), np.array(2)) == 0.0625
    assert value(np.array(0.25), np.array(3)) == pytest.approx((1 - 1 / 64 - 27 / 64) * 0.25 * 0.5625, rel=1e-15)
    assert value(np.array([0.3, 0.3, 0.0, 1.0]), np.array([0, 1, 9, 9])).tolist() == [0.0, 0.0, 0.0, 0.0]
    grid = np.linspace(0, 1, 3001)
    assert grid[np.argmax(information(grid))] == pytest.approx(1 / 3, abs=1e-12)


@given(st.floats(0.001, 0.999))
@settings(max_examples=300)
def test_what_an_answer_adds_falls(p):
    gains = np.diff(value(np.full(20, p), np.arange(1, 21)))
    assert np.all(np.diff(gains) <= 1e-15)


@given(st.lists(rate, min_size=1, max_size=30), st.integers(0, 400), st.booleans())
@settings(max_examples=400, deadline=None)
def test_every_total_is_met(rates, total, surplus):
    counts = divide(rates, total, Knapsack(surplus=surplus))
    assert sum(counts) == total and min(counts) >= 0


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4), st.integers(0, 8), st.sampled_from([1, 2]))
@settings(max_examples=200, deadline=None)
def test_it_is_the_best_of_all_divisions(rates, extra, least):
    total = least * len(rates) + min(extra, 5 * len(rates))
    p = np.array(rates)
    counts = Knapsack(least=least, surplus=False, most=8).allocate(Claims(p), total, high=7)
    every = itertools.product(range(least, 8), repeat=len(rates))
    best = max(value(p, np.array(division)).sum() for division in every if sum(division) == total)
    assert value(p, counts).sum() >= best - 1e-15


def test_equal_rates_get_the_same():
    assert divide([0.3] * 3, 23) == [8, 8, 7]
    assert divide([math.nan] * 3, 23) == [8, 8, 7]


def test_unknown_rates_get_the_even_share_wherever_they_stand():
    assert divide([math.nan, 0.5, 0.5, 0.1], 35)[0] == 8
    assert divide([0.5, 0.5, 0.1, math.nan], 35)[3] == 8


def test_questions_without_a_signal_get_two_and_the_rest_goes_by_value():
    # 2 are enough for neither of 0.05: c = ln 0.1 / ln 0.95 = 44.9
    assert divide([0.0, 1.0, 0.05, 0.05], 32) == [2, 2, 14, 14]
    assert divide([0.0, 1.0, 0.05, 0.05], 32, Knapsack(least_failed=5, least_solved=1)) == [5, 1, 13, 13]


def test_what_is_not_needed_goes_to_the_failed():
    # at 1/2: c = ln 0.1 / ln 0.5 = 3.3, so 3 beyond the least 2; 32 - 6 = 26 are left, 26 - 3 go to the failed
    assert divide([0.5, 0.0, 1.0], 32) == [5, 25, 2]
    assert divide([0.5, 0.0, 0.0, 1.0], 32) == [5, 13, 12, 2]
    # nobody failed: to all that are not strictly between
    assert divide([0.5, 1.0, 1.0], 32) == [5, 14, 13]
    assert divide([0.5, 1.0, math.nan], 33) == [5, 10, 18]  # 11 for the unknown; 22 - 4 - 3 = 15 are spread over two
    # without it all goes by value
    assert divide([0.5, 0.0, 1.0], 32, Knapsack(surplus=False)) == [28, 2, 2]
    # the other need: 1 / (1/4) - 1 = 3, and 1 / 0.16 - 1 = 5.25 at 0.2
    assert divide([0.2, 0.0], 32, Knapsack(need="expectation")) == [7, 25]
    # a chance of 0.5 takes ln 0.5 / ln 0.8 = 3.1
    assert divide([0.2, 0.0], 32, Knapsack(confidence=0.5)) == [5, 27]


def test_needs_are_cut_at_the_most():
    assert divide([0.01, 0.0], 300) == [130, 170]  # c = 229, cut to 128; two more are kept back and spread
    assert divide([0.01, 0.0], 100, Knapsack(most=10)) == [12, 88]


def test_without_any_between():
    assert divide([0.0, 0.0, 1.0], 24) == [11, 11, 2]
    assert divide([1.0, 1.0, 1.0], 24) == [8, 8, 8]
    assert divide([1.0, math.nan], 24) == [12, 12]
    assert divide([0.0, math.nan, 1.0], 24) == [14, 8, 2]


def test_its_own_least_and_most_give_way():
    assert divide([0.5, 0.3, 0.2], 3) == [1, 1, 1]  # two each would be six
    assert divide([0.5, 0.3, 0.2], 6, high=np.array([1, 9, 9]))[0] == 1
    assert divide([0.5, 0.5], 12, Knapsack(most=3, surplus=False)) == [6, 6]  # most keeps back six, which are spread
    assert divide([0.0, 0.5], 12, low=5)[0] >= 5
    assert divide([0.0, 1.0, 0.5], 30, high=10) == [10, 10, 10]


def test_it_is_worth_more_than_the_same_for_everyone():
    """The published kind of comparison: 256 questions with p ~ Beta(0.3, 0.6), 2048 answers; 13.2 to 12.1 over 20 draws."""
    ratios, mixed = [], []
    for seed in range(5):
        p = np.random.default_rng(seed).beta(0.3, 0.6, 256)
        ours, even = Knapsack().allocate(Claims(p), 2048), Uniform().allocate(Claims(p), 2048)
        ratios.append(value(p, ours).sum() / value(p, even).sum())
        mixed.append(np.mean(p**even + (1 - p) ** even) - np.mean(p**ours + (1 - p) ** ours))
    assert min(ratios) > 1.07 and max(ratios) < 1.12  # 14.23 / 13.06 = 1.09
    assert np.mean(mixed) > 0.01


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"least": 0}, "least must be >= 1"),
        ({"least_failed": 0}, "least_failed must be >= 1"),
        ({"least_solved": 0}, "least_solved must be >= 1"),
        ({"most": 1}, "most must be >= least"),
        ({"confidence": 1.0}, "confidence must lie"),
        ({"need": "hope"}, "need must be"),
    ],
)
def test_ranges(fields, message):
    with pytest.raises(ValueError, match=message):
        Knapsack(**fields)


def test_nobody_gets_more_than_the_most_while_others_have_room():
    # by value the rare success would take nearly all
    assert divide([0.02, 0.5, 0.5], 30, Knapsack(surplus=False))[0] > 10
    assert divide([0.02, 0.5, 0.5], 30, Knapsack(surplus=False, most=10)) == [10, 10, 10]
