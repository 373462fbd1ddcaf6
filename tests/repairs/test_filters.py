"""Drop and refill: which groups stay, how many are asked for, and what it costs."""

from __future__ import annotations

from itertools import product
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.context import Context
from outlay.prompts.base import Question
from outlay.repairs import Attempt, Drop, Group, Refill
from outlay.rollout.base import Completion
from outlay.testing.repairs import Bench, Riddler

CONTEXT = Context(seed=0)


def group(*values: float, judged: bool = True) -> Group:
    return Group(Question("?"), [Attempt((1,), Completion(0, i, (2,), (0.0,), "end"), value, judged) for i, value in enumerate(values)])


def test_a_group_says_whether_it_varies_or_failed() -> None:
    assert group(0, 1).varied and not group(0, 1).failed
    assert group(0, 0).failed and group(-1, -0.5).failed and not group(-1, 0.5).failed
    assert not group(1, 1).varied and not group(1, 1).failed
    silent = group(0, 1, judged=False)
    assert not silent.varied and not silent.failed and silent.values == []


def test_drop_keeps_what_varies_and_asks_nothing() -> None:
    groups = [group(0, 0), group(0, 1), group(1, 1), group(0, 2), group(0, 1)]
    shop = Bench(rollouts=0)
    assert Drop().open(CONTEXT).mend(groups, 2, shop) == [groups[1], groups[3]]
    assert shop.calls == []


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.25, 0.75), (0.2, 0.8), (0.0, 0.5)])
def test_a_band_keeps_the_binomial_share(low: float, high: float) -> None:
    mending, size = Refill(low, high).open(CONTEXT), 6
    kept = [sum(pattern) for pattern in product((0, 1), repeat=size) if mending.keeps(group(*pattern))]

    def chance(p: float) -> float:
        return sum(p**k * (1 - p) ** (size - k) for k in kept)

    for p in (0.1, 0.5, 0.8):
        inside = [k for k in range(size + 1) if low <= k / size <= high and 0 < k < size]
        assert chance(p) == pytest.approx(sum(comb(size, k) * p**k * (1 - p) ** (size - k) for k in inside))
        if low == 1 - high:
            assert chance(p) == pytest.approx(chance(1 - p))
    if (low, high) == (0.0, 1.0):  # dynamic sampling: all but the groups without signal
        assert chance(0.3) == pytest.approx(1 - 0.3**size - 0.7**size)


def test_rewards_outside_zero_and_one_count_as_failure_and_success() -> None:
    mending = Refill(0.25, 0.75).open(CONTEXT)
    assert mending.keeps(group(-1, 3)) and not mending.keeps(group(-1, -2)) and not mending.keeps(group(2, 3))


def test_the_batch_is_filled_and_what_was_thrown_away_is_charged() -> None:
    shop = Bench(levels=(0, 1, 3))
    groups = shop.ask(6)
    came = Refill(rounds=10).open(CONTEXT).mend(groups, 6, shop)
    assert len(came) == 6 and all(one.varied for one in came)
    assert shop.charged == 8 * shop.asked > 6 * 8


def test_no_more_is_asked_than_is_missing_nor_oftener_than_the_rounds() -> None:
    shop = Bench(levels=(9,))
    groups = [group(0, 1), group(0, 0), group(1, 1), group(0, 1, 1)]
    came = Refill(rounds=4).open(CONTEXT).mend(groups, 4, shop)
    assert came == [groups[0], groups[3]] and shop.calls == ["ask"] * 3 and shop.asked == 3 * 2
    assert Refill(rounds=1).open(CONTEXT).mend(groups, 4, Bench(rollouts=0)) == [groups[0], groups[3]]


@given(st.integers(0, 60))
def test_whatever_is_left_of_the_budget_only_whole_groups_come(rollouts: int) -> None:
    shop = Bench(rollouts=rollouts, policy=Riddler(skill=2.0), levels=(0,))
    came = Refill(rounds=3).open(CONTEXT).mend([], 5, shop)
    assert all(len(one.attempts) == 8 for one in came) and shop.charged <= rollouts and len(came) <= rollouts // 8


def test_bands_are_checked() -> None:
    for low, high in ((0.5, 0.5), (-0.1, 1.0), (0.0, 1.1)):
        with pytest.raises(ValueError, match="band"):
            Refill(low, high)
    with pytest.raises(ValueError, match="rounds"):
        Refill(rounds=0)
