"""Neyman, GVM and CurES: divisions at which a variance is smallest."""

from __future__ import annotations

import numpy as np
import pytest

from outlay.allocators import Claims, Cures, Gvm, Neyman, Uniform
from outlay.allocators.cures import deviation
from outlay.allocators.neyman import spread

NAN = np.nan


def claims(rates, right=None, wrong=None, sizes=None, costs=None):
    return Claims(*(None if one is None else np.array(one, float) for one in (rates, None, right, wrong, sizes, costs)))


def test_neyman_is_size_times_spread_over_the_root_of_the_cost():
    assert spread(np.array([0.5, 0.1, 0.0, 1.0, NAN])) == pytest.approx([0.5, 0.3, 0, 0, 0.5])
    assert Neyman().allocate(claims([0.5, 0.1, 0.0]), 80).tolist() == [50, 30, 0]
    assert Neyman().allocate(claims([0.5, 0.1], sizes=[3, 1]), 180).tolist() == [150, 30]
    assert Neyman().allocate(claims([0.5, NAN], costs=[1, 4]), 30).tolist() == [20, 10]


def test_neyman_makes_the_variance_of_the_mean_smallest():
    draw = np.random.default_rng(0)
    one = Claims(draw.uniform(0.05, 0.95, 6), sizes=draw.lognormal(size=6))
    parts = one.sizes * spread(one.rates)
    counts = Neyman().allocate(one, 100_000)
    assert np.sum(parts**2 / counts) == pytest.approx(np.sum(parts) ** 2 / 100_000, rel=1e-6)


def test_gvm_without_alpha_reaches_the_least_variance():
    draw = np.random.default_rng(1)
    rates, norms = draw.beta(0.3, 0.6, 20) * 0.98 + 0.01, draw.lognormal(0, 0.7, 20)
    total = 10_000_000
    counts = Gvm(alpha=0.0).allocate(claims(rates, norms), total)
    least = np.sum(norms / np.sqrt(rates)) ** 2 / total
    assert np.sum(norms**2 / (rates * counts)) == pytest.approx(least, rel=1e-6)
    even = Uniform().allocate(claims(rates), total)
    assert np.sum(norms**2 / (rates * even)) > 1.3 * least
    # then beta says nothing, and a small alpha is near it
    assert np.array_equal(counts, Gvm(alpha=0.0, beta=3.0).allocate(claims(rates, norms), total))
    assert np.allclose(counts, Gvm(alpha=1e-12).allocate(claims(rates, norms), total), rtol=1e-6)


def test_gvm_worked_by_hand():
    # 1 / sqrt(1/4) : 1 / sqrt(1) : 3 / sqrt(1)
    assert Gvm(alpha=0.0).allocate(claims([0.25, 1.0, 1.0], [1, 1, 3]), 60).tolist() == [20, 10, 30]
    # p + alpha / p = 0.25 + 0.5625 / 0.25 = 2.5 and 1 + 0.5625; beta = 3: 0.25 + 0.5625 / 0.0625 = 9.25
    assert Gvm(alpha=0.5625).weights(claims([0.25, 1.0], [1, 1])) == pytest.approx([2.5**-0.5, 1 / 1.25])
    assert Gvm(alpha=0.5625, beta=3.0).weights(claims([0.25, 1.0], [1, 2])) == pytest.approx([9.25**-0.5, 2 / 1.25])
    assert Gvm().allocate(claims([0.0, 0.5, 0.5], [5, 0, 1]), 9).tolist() == [0, 0, 9]
    assert Gvm().allocate(claims([0.3] * 3, [2] * 3), 9).tolist() == [3, 3, 3]


def test_gvm_gives_most_to_the_root_of_alpha():
    grid = np.geomspace(1e-3, 1, 3001)
    assert grid[np.argmax(Gvm().weights(claims(grid)))] == pytest.approx(np.sqrt(1e-3), rel=2e-3)


def test_gvm_filters():
    one = claims([1.0, 0.8, 0.25], [1, 1, 1])
    assert Gvm(above=0.9).allocate(one, 30)[0] == 0 and Gvm(above=0.8).allocate(one, 30)[1] > 0
    # 100 are divided as 20 : 40 : 40 here, so that 20, 10 and 0.4 right answers are expected
    expected = claims([1.0, 0.25, 0.01], [1, 1, 0.2])
    plain = Gvm(alpha=0.0)
    assert plain.allocate(expected, 100).tolist() == [20, 40, 40]
    assert Gvm(alpha=0.0, fewest=1.0).allocate(expected, 90).tolist() == [30, 60, 0]
    assert Gvm(alpha=0.0, fewest=15.0).allocate(expected, 100).tolist() == [100, 0, 0]
    assert Gvm(alpha=0.0, fewest=1e6).allocate(expected, 100).tolist() == [20, 40, 40]  # nobody is left: set aside


def test_gvm_without_norms_or_rates():
    assert np.array_equal(Gvm().allocate(claims([0.2, 0.9]), 50), Gvm().allocate(claims([0.2, 0.9], [NAN, NAN]), 50))
    # the unknown norm is the mean of 1 and 3; the unknown rate weighs as the mean of the others
    assert Gvm(alpha=0.0).allocate(claims([1, 1, 1], [1, NAN, 3]), 60).tolist() == [10, 20, 30]
    assert Gvm(alpha=0.0).allocate(claims([1, NAN, 1], [1, 1, 3]), 60).tolist() == [10, 20, 30]


def test_cures_is_the_deviation_of_one_gradient():
    """sigma^2 against the two-point distribution itself: (1 - p) g+ with chance p, -p g- else, along one direction."""
    p, right, wrong = np.array([0.3, 0.9]), np.array([2.0, 1.0]), np.array([1.0, 5.0])
    q = 1 - p
    second = p * (q * right) ** 2 + q * (p * wrong) ** 2
    mean = p * (q * right) - q * (p * wrong)
    assert deviation(p, right, wrong) == pytest.approx(np.sqrt(second - mean**2))
    assert deviation(p, right, wrong) == pytest.approx(np.sqrt(p * q) * (q * right + p * wrong))
    squares = deviation(p, right, wrong, right**2 + 1, wrong**2 + 2)
    assert squares == pytest.approx(np.sqrt(second + p * q**2 + 2 * p**2 * q - (p * q * (right - wrong)) ** 2))


def test_cures_closed_forms():
    assert deviation(np.array([0.0, 1.0]), np.ones(2), np.ones(2)).tolist() == [0.0, 0.0]
    p = np.array([0.1, 0.5, 0.8])
    assert deviation(p, np.full(3, 3.0), np.full(3, 3.0)) == pytest.approx(3 * np.sqrt(p * (1 - p)))
    assert Cures().allocate(claims([0.5, 0.1, 0.0, 1.0], [7] * 4, [7] * 4), 80).tolist() == [50, 30, 0, 0]
    assert Cures().allocate(claims([0.5, 0.1]), 80).tolist() == [50, 30]
    # q g+ + p g-: 0.5 * 1 + 0.5 * 3 = 2 and 0.5 * 3 + 0.5 * 3 = 3
    assert Cures().allocate(claims([0.5, 0.5], [1, 3], [3, 3]), 50).tolist() == [20, 30]


def test_cures_without_some_norms():
    # nobody knows the norms of right answers: as those of wrong ones
    expected = Cures().allocate(claims([0.5, 0.2], [1, 4], [1, 4]), 100)
    assert np.array_equal(Cures().allocate(claims([0.5, 0.2], None, [1, 4]), 100), expected)
    assert np.array_equal(Cures().allocate(claims([0.5, 0.2], [1, 4], [NAN, NAN]), 100), expected)
    one_gap = Cures().allocate(claims([0.5, 0.5, NAN], [1, NAN, 3], [1, 1, 1]), 450)
    assert one_gap.tolist() == [100, 150, 200]  # (1 + 1) : (2 + 1) : (3 + 1)


def test_both_lower_the_variance_that_is_measured():
    """Means over accepted (GVM) and over all (CurES) answers of 24 questions, 2000 batches each."""
    draw = np.random.default_rng(3)
    many, total = 24, 24 * 16
    rates, norms = draw.uniform(0.05, 0.95, many), draw.lognormal(0, 1.0, many)
    one = claims(rates, norms, norms)
    even = Uniform().allocate(one, total)

    def of_batches(counts):
        accepted = np.maximum(draw.binomial(counts, rates, (2000, many)), 1)
        return float(np.mean(np.sum(draw.normal(size=(2000, many)) * norms / np.sqrt(accepted), 1) ** 2))

    assert of_batches(Gvm().allocate(one, total, low=2)) < 0.8 * of_batches(even)

    def of_policies(counts):
        right = draw.binomial(counts, rates, (2000, many))
        gradient = norms * (right * (1 - rates) - (counts - right) * rates) / counts
        return float(np.var(np.sum(gradient, 1)))

    assert of_policies(Cures().allocate(one, total, low=2)) < 0.8 * of_policies(even)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gvm(probe=0), "probe must be > 0"),
        (lambda: Gvm(alpha=-1.0), "alpha must be >= 0"),
        (lambda: Gvm(beta=0.5), "beta must be >= 1"),
        (lambda: Gvm(above=0.0), "above must lie"),
        (lambda: Gvm(fewest=-1.0), "fewest must be"),
        (lambda: Cures(probe=0), "probe must be > 0"),
    ],
)
def test_ranges(make, message):
    with pytest.raises(ValueError, match=message):
        make()
