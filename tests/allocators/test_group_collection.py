from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from outlay.allocators import Claims, Collection, GroupCollection, LearningCurve
from outlay.allocators.group_collection import best_counts, closed_form, fit_curve, greedy_counts, next_group, worst_first
from outlay.errors import InputError

SCALES, WEIGHTS, COSTS = np.array([1.0, 4.0, 9.0, 2.0]), np.array([1.0, 2.0, 1.0, 0.5]), np.array([1.0, 1.0, 3.0, 0.5])


def curves(scales, exponents=1.0):
    return [LearningCurve(float(a), float(p)) for a, p in zip(scales, np.broadcast_to(exponents, len(scales)), strict=True)]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_the_closed_form_spends_the_money_at_equal_gains_per_cost(exponent):
    counts = closed_form(SCALES, 100.0, exponent, WEIGHTS, COSTS)
    assert np.sum(COSTS * counts) == pytest.approx(100.0, rel=1e-14)
    gains = WEIGHTS * SCALES * exponent * counts ** (-exponent - 1) / COSTS
    assert gains == pytest.approx(np.full(4, gains[0]), rel=1e-12)
    assert closed_form(SCALES, 200.0, exponent, WEIGHTS, COSTS) == pytest.approx(2 * counts, rel=1e-14)


def test_the_closed_form_is_neymans_for_variances():
    assert closed_form(np.array([1.0, 4.0, 9.0]), 60.0) == pytest.approx([10, 20, 30])
    assert closed_form(np.ones(4), 60.0) == pytest.approx([15] * 4)


def test_curves_of_their_own_exponents():
    assert best_counts(curves(SCALES), 100.0, weights=WEIGHTS, costs=COSTS) == pytest.approx(
        closed_form(SCALES, 100.0, 1.0, WEIGHTS, COSTS)
    )
    exponents = np.array([0.5, 1.0, 1.5, 0.7])
    counts = best_counts(curves(SCALES, exponents), 100.0, weights=WEIGHTS, costs=COSTS)
    gains = WEIGHTS * SCALES * exponents * counts ** (-exponents - 1) / COSTS
    assert gains == pytest.approx(np.full(4, gains[0])) and np.sum(COSTS * counts) == pytest.approx(100.0)


def test_what_is_owned_stays_and_a_pool_that_is_empty_is_left_out():
    counts = best_counts(curves([1.0, 4.0, 9.0]), 60.0, low=np.array([0.0, 30.0, 0.0]))
    assert counts == pytest.approx([7.5, 30.0, 22.5])
    counts = best_counts(curves([1.0, 4.0, 9.0]), 60.0, high=np.array([99.0, 99.0, 12.0]))
    assert counts == pytest.approx([16.0, 32.0, 12.0])
    assert best_counts(curves([1.0, 4.0]), 60.0, high=np.array([5.0, 6.0])) == pytest.approx([5.0, 6.0])
    with pytest.raises(InputError, match="does not pay"):
        best_counts(curves([1.0, 4.0]), 3.0, low=np.array([2.0, 2.0]))


def test_greedy_finds_the_best_of_all_whole_numbers():
    """3 groups and 30 examples, every one of 406 divisions that gives each something."""
    ours = [LearningCurve(1.0, 0.5, 0.1), LearningCurve(3.0, 1.0), LearningCurve(2.0, 1.5, 0.3)]
    weights = np.array([1.0, 0.5, 2.0])

    def total(counts):
        return sum(w * curve.loss(n) for w, curve, n in zip(weights, ours, counts, strict=True))

    counts = greedy_counts(ours, 30, weights=weights)
    best = min(total((i, j, 30 - i - j)) for i, j in itertools.product(range(1, 29), repeat=2) if i + j < 30)
    assert total(counts) == best and counts.sum() == 30


def test_greedy_goes_by_gain_per_cost():
    assert greedy_counts(curves([1.0, 1.0]), 101, costs=np.array([1.0, 16.0]), low=1).tolist() == [81, 20]


def test_the_worst_first_ends_with_equal_losses():
    ours = [LearningCurve(1.0, 0.5), LearningCurve(3.0, 1.0), LearningCurve(2.0, 1.5)]
    counts = worst_first(ours, 60)
    losses = [curve.loss(int(n)) for curve, n in zip(ours, counts, strict=True)]
    step = max(curve.loss(int(n) - 1) - curve.loss(int(n)) for curve, n in zip(ours, counts, strict=True))
    assert counts.sum() == 60 and max(losses) - min(losses) <= step


def test_the_division_among_claims():
    one = Claims(np.array([0.0, 0.75, np.nan]), sizes=np.array([1.0, 1.0, 2.0]), costs=np.array([1.0, 1.0, 0.25]))
    # w a / c = 1, 0.25, 4: roots 1 : 0.5 : 2
    assert GroupCollection().allocate(one, 70).tolist() == [20, 10, 40]
    # cube roots of the squares for exponent 0.5: 1 : 0.397 : 2.52
    assert GroupCollection(0.5).allocate(one, 1000).tolist() == [255, 101, 644]
    # the worst: scales 1, 0.25, 0.5 whatever sizes and costs are; squares of them for exponent 0.5
    assert GroupCollection(worst=True).allocate(one, 70).tolist() == [40, 10, 20]
    assert GroupCollection(0.5, worst=True).allocate(one, 84).tolist() == [64, 4, 16]
    with pytest.raises(ValueError, match="exponent must be > 0"):
        GroupCollection(0.0)


def test_curves_are_found_again():
    counts = [10, 20, 40, 80, 160]
    for a, p, e in ((3.0, 0.5, 0.0), (10.0, 1.0, 0.2), (2.0, 0.3, 0.1)):
        found = fit_curve(counts, [a * n**-p + e for n in counts])
        assert found is not None
        assert found.exponent == pytest.approx(p, rel=0.05) and found.floor == pytest.approx(e, abs=0.02)
        assert found.loss(320) == pytest.approx(a * 320**-p + e, rel=0.01)
    for counts, losses in (
        ([1, 2], [2, 1]),
        ([1, 2, 2], [3, 2, 1]),
        ([1, 2, 3], [1, 2, 3]),
        ([1, 2, 3], [2, 1, 0]),
        ([0, 1, 2], [3, 2, 1]),
    ):
        assert fit_curve(counts, losses) is None


def test_the_next_is_furthest_below_its_target():
    targets, yes = np.array([10.0, 20.0, 0.0]), np.ones(3, bool)
    assert next_group(np.array([5, 8, 0]), targets, yes) == 1
    assert next_group(np.array([5, 8, 0]), targets, np.array([True, False, True])) == 0
    assert next_group(np.array([5, 8, 0]), targets, ~yes) == -1


def bought(collection, true, rounds, batch):
    for _ in range(rounds):
        collection.buy(batch)
        collection.observe([curve.loss(int(n)) for curve, n in zip(true, collection.owned, strict=True)])
    return collection


def test_a_collection_comes_to_the_best_division():
    true = curves(SCALES)
    costs = tuple(COSTS.tolist())
    done = bought(Collection(4, 1000.0, costs, tuple(WEIGHTS.tolist())), true, 10, 100.0)
    best = closed_form(SCALES, 1000.0, 1.0, WEIGHTS, COSTS)
    # the first three batches were even, which is too many for some
    ours, ideal = (float(np.sum(WEIGHTS * SCALES / n)) for n in (done.owned, best))
    assert ours < 1.05 * ideal and 0 <= done.left < 3.0
    assert np.sum(COSTS * done.owned) + done.left == pytest.approx(1000.0)


def test_the_worst_group_is_bought_for():
    done = bought(Collection(3, 300.0, worst=True), curves([1.0, 2.0, 3.0]), 60, 5.0)
    assert done.owned.sum() == 300 and done.owned == pytest.approx([50, 100, 150], abs=10)


def test_a_pool_is_never_overdrawn_and_nothing_left_buys_nothing():
    done = bought(Collection(2, 50.0, pools=(5, 100)), curves([9.0, 1.0]), 5, 10.0)
    assert done.owned.tolist() == [5, 45]
    assert done.buy(10.0).tolist() == [0, 0]


def test_a_collection_goes_on_from_its_state():
    true = curves(SCALES)
    whole, half, taken = (Collection(4, 500.0) for _ in range(3))
    bought(whole, true, 8, 50.0)
    bought(half, true, 4, 50.0)
    taken.load_state_dict(json.loads(json.dumps(half.state_dict())))
    assert bought(taken, true, 4, 50.0).state_dict() == whole.state_dict()
    with pytest.raises(ValueError, match="costs must be one for each"):
        Collection(2, 5.0, (1.0,))
    with pytest.raises(ValueError, match="costs must be > 0"):
        Collection(2, 5.0, (1.0, 0.0))


def test_regression_groups_of_different_noise_and_cost():
    """Four linear regressions: buying by estimated noise ends near the division by the true noise, and ahead of equal and proportional."""
    draw = np.random.default_rng(0)
    noise, costs, shares = np.array([0.5, 1.0, 2.0, 4.0]), np.array([1.0, 1.0, 2.0, 1.0]), np.array([0.5, 0.3, 0.15, 0.05])
    money, width = 1200.0, 5
    truth = draw.normal(size=(4, width))

    def measured(group, count):
        inputs = draw.normal(size=(count, width))
        targets = inputs @ truth[group] + noise[group] * draw.normal(size=count)
        found, *_ = np.linalg.lstsq(inputs, targets, rcond=None)
        return np.sum((targets - inputs @ found) ** 2) / (count - width)

    owned = np.full(4, 20)
    while True:
        variances = np.array([measured(group, int(owned[group])) for group in range(4)])
        can = costs * 10 <= money - np.sum(costs * owned)
        group = next_group(owned, closed_form(variances, money, costs=costs), can)
        if group < 0:
            break
        owned[group] += 10

    def losses(counts):
        return float(np.sum(noise**2 * width / (counts - width - 1)))  # the expected excess error of least squares

    oracle = losses(closed_form(noise**2, money, costs=costs))
    equal = losses(np.full(4, money / costs.sum()))
    proportional = losses(money * shares / np.sum(costs * shares))
    assert losses(owned) < 1.05 * oracle
    assert losses(owned) < 0.8 * equal and equal < proportional
