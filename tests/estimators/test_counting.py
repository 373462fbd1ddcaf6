"""Estimators that count answers: windows, Beta posteriors and category averages, by hand and in their limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.arms import Arm, Outcome
from outlay.context import Context
from outlay.estimators import Beta, CategoryAverage, Windowed

ARMS = [Arm("a", "x"), Arm("b", "x"), Arm("c", "y"), Arm("d", "z")]
CONTEXT = Context(0)
VISITS = st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=24), min_size=1, max_size=6)


# ---- windows -----------------------------------------------------------------------------------------------------------------------


@given(VISITS)
def test_a_window_is_the_latest_visit_or_the_latest_sixteen(visits: list[list[float]]) -> None:
    estimates = Windowed().open(ARMS, CONTEXT)
    for visit in visits:
        estimates.update([Outcome(1, tuple(visit))])
    whole = [value for visit in visits for value in visit]
    window = visits[-1] if len(visits[-1]) >= 16 else whole[-16:]
    rate = estimates.rates()[1]
    if len(whole) < 8:
        assert np.isnan(rate)
    else:
        assert rate == sum(window) / len(window)
    assert estimates.seen().tolist() == [0, len(window), 0, 0]
    assert np.isnan(estimates.rates()[[0, 2, 3]]).all()


def test_a_large_visit_counts_whole_and_a_small_one_goes_back_into_it() -> None:
    estimates = Windowed().open(ARMS, CONTEXT)
    estimates.update([Outcome(0, (0.0,) * 20 + (1.0,) * 20)])
    assert (estimates.rates()[0], estimates.seen()[0]) == (0.5, 40)
    estimates.update([Outcome(0, (0.0,) * 4)])
    assert (estimates.rates()[0], estimates.seen()[0]) == (12 / 16, 16)


def test_a_visit_is_all_that_an_update_brings_of_an_arm() -> None:
    once, split = Windowed(window=4, least=1).open(ARMS, CONTEXT), Windowed(window=4, least=1).open(ARMS, CONTEXT)
    once.update([Outcome(0, (1.0,) * 4), Outcome(1, (1.0,)), Outcome(0, (0.0,) * 4)])
    split.update([Outcome(0, (1.0,) * 4)])
    split.update([Outcome(0, (0.0,) * 4)])
    assert (once.rates()[0], once.seen()[0]) == (0.5, 8)
    assert (split.rates()[0], split.seen()[0]) == (0.0, 4)


def test_answers_that_have_left_the_window_still_make_an_arm_known() -> None:
    estimates = Windowed(window=2, least=3).open(ARMS, CONTEXT)
    for reward, rate in ((1.0, np.nan), (1.0, np.nan), (0.0, 0.5), (-1.0, 0.0)):
        estimates.update([Outcome(0, (reward,))])
        assert estimates.rates()[0] == pytest.approx(rate, nan_ok=True)
    assert estimates.of(np.array([0, 1, 0]), None) == pytest.approx([0, np.nan, 0], nan_ok=True)


# ---- Beta posteriors ---------------------------------------------------------------------------------------------------------------


@given(VISITS)
def test_the_posterior_mean_without_decay(visits: list[list[float]]) -> None:
    estimates = Beta().open(ARMS, CONTEXT)
    assert estimates.rates().tolist() == [0.5] * 4
    for visit in visits:
        estimates.update([Outcome(2, tuple(visit))])
    whole = [value for visit in visits for value in visit]
    assert estimates.rates()[2] == (sum(whole) + 1) / (len(whole) + 2)
    assert estimates.seen().tolist() == [0, 0, len(whole), 0]


def test_old_answers_of_all_arms_fade_once_an_update() -> None:
    estimates = Beta(decay=0.5).open(ARMS, CONTEXT)
    estimates.update([Outcome(0, (1.0,) * 8), Outcome(0, (0.0,) * 8), Outcome(1, (1.0,) * 4)])
    assert estimates.seen().tolist() == [16, 4, 0, 0]
    estimates.update([Outcome(0, (0.0,) * 2)])
    assert estimates.seen().tolist() == [10, 2, 0, 0]
    assert estimates.rates().tolist() == [5 / 12, 3 / 4, 0.5, 0.5]
    for _ in range(60):
        estimates.update([Outcome(2, (1.0,))])
    # what is left of many updates with one answer each is 1 / (1 - decay), and an arm that is not asked goes back to the prior
    assert estimates.seen() == pytest.approx([0, 0, 2, 0])
    assert estimates.rates() == pytest.approx([0.5, 0.5, 3 / 4, 0.5])


def test_a_success_is_worth_more_than_the_threshold() -> None:
    for threshold, right in ((0.5, 1), (0.49, 2), (0.0, 3)):
        estimates = Beta(threshold=threshold).open(ARMS, CONTEXT)
        estimates.update([Outcome(0, (0.0, 0.1, 0.5, 1.0))])
        assert estimates.rates()[0] == (right + 1) / 6


# ---- category averages -------------------------------------------------------------------------------------------------------------


@given(st.floats(0.01, 1), st.integers(0, 12))
def test_after_a_change_the_old_rate_decays_geometrically(alpha: float, updates: int) -> None:
    """The paper's closed form: Q_t = r (1 - (1 - alpha)^t) from 0; here from a first batch in which nothing was right."""
    estimates = CategoryAverage(alpha=alpha).open(ARMS, CONTEXT)
    estimates.update([Outcome(0, (0.0,))])
    for _ in range(updates):
        estimates.update([Outcome(1, (0.75, 0.75))])
    assert estimates.rates()[:2] == pytest.approx(0.75 * (1 - (1 - alpha) ** updates), abs=1e-12)
    assert np.isnan(estimates.rates()[2:]).all()


def test_an_update_counts_once_by_the_mean_of_all_answers_of_the_category() -> None:
    estimates = CategoryAverage(alpha=0.25).open(ARMS, CONTEXT)
    estimates.update([Outcome(0, (1.0,) * 3), Outcome(2, (0.5,)), Outcome(1, (0.0,))])
    assert estimates.rates() == pytest.approx([0.75, 0.75, 0.5, np.nan], nan_ok=True)
    assert estimates.seen().tolist() == [4, 4, 1, 0]
    estimates.update([Outcome(1, (0.0,) * 2)])
    assert estimates.rates() == pytest.approx([0.75 * 0.75, 0.75 * 0.75, 0.5, np.nan], nan_ok=True)
    assert estimates.seen().tolist() == [2 + 0.75 * 4, 2 + 0.75 * 4, 1, 0]
    assert estimates.of(np.array([2, 1]), None).tolist() == [0.5, 0.5625]


@given(VISITS, st.integers(1, 30))
def test_with_a_window_the_rate_is_the_mean_of_the_latest(visits: list[list[float]], window: int) -> None:
    estimates = CategoryAverage(window=window).open(ARMS, CONTEXT)
    for step, visit in enumerate(visits):
        estimates.update([Outcome(step % 2, tuple(visit))])
    latest = [value for visit in visits for value in visit][-window:]
    assert estimates.rates()[:2].tolist() == [sum(latest) / len(latest)] * 2
    assert estimates.seen().tolist() == [len(latest)] * 2 + [0, 0]


def test_arms_without_a_category_share_one() -> None:
    estimates = CategoryAverage().open([Arm("a"), Arm("b"), Arm("c", "x")], CONTEXT)
    estimates.update([Outcome(0, (1.0,))])
    assert estimates.rates() == pytest.approx([1, 1, np.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (Windowed, {"window": 0}, "window must be > 0"),
        (Windowed, {"least": 0}, "least must be > 0"),
        (Beta, {"decay": 0.0}, "decay must be in (0, 1]"),
        (Beta, {"decay": 1.1}, "decay must be in (0, 1]"),
        (Beta, {"threshold": 1.0}, "threshold must be in [0, 1)"),
        (CategoryAverage, {"alpha": 0.0}, "alpha must be in (0, 1]"),
        (CategoryAverage, {"window": 0}, "window must be > 0 or None"),
    ],
)
def test_ranges(cls: type, fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        cls(**fields)
    assert message in str(caught.value)
