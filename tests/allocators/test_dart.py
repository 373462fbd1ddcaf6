from __future__ import annotations

import numpy as np
import pytest

from outlay.allocators import Claims, DartPropToDifficulty, DartUniform
from outlay.allocators.dart import difficulty_targets, expected_trials, uniform_targets

RATES = np.array([1.0, 0.5, 0.25, 0.0, np.nan])


def test_targets():
    assert uniform_targets(RATES, 40)[:4].tolist() == [40] * 4 and np.isnan(uniform_targets(RATES, 40)[4])
    targets = difficulty_targets(RATES, 192)
    assert targets[:4].tolist() == [1, 96, 144, 192] and np.isnan(targets[4])
    assert difficulty_targets(np.array([0.9, 0.8]), 5).tolist() == [3, 5]  # relative to the hardest: 2.5, half up
    assert difficulty_targets(np.array([1.0, 1.0]), 5, least=2).tolist() == [2, 2]
    rising = difficulty_targets(np.linspace(1, 0, 50), 192)
    assert np.all(np.diff(rising) >= 0) and rising[-1] == 192


def test_expected_trials_are_the_mean_of_the_negative_binomial():
    assert expected_trials(RATES, uniform_targets(RATES, 40), 2048)[:4].tolist() == [40, 80, 160, 2048]
    assert expected_trials(np.array([0.01]), np.array([40.0]), 2048).tolist() == [2048]  # 4000 are given up
    draw = np.random.default_rng(0)
    taken = 40 + draw.negative_binomial(40, 0.25, 20_000)  # failures before the 40th success
    assert np.mean(taken) == pytest.approx(160, rel=0.01)


def test_uniform_keeps_as_many_of_each():
    rates = np.array([1.0, 0.5, 0.25, 0.1])
    trials = DartUniform().allocate(Claims(rates), int(expected_trials(rates, uniform_targets(rates, 40), 2048).sum()))
    assert (trials * rates).tolist() == [40, 40, 40, 40]


def test_proportional_to_difficulty():
    rates = np.array([1.0, 0.5, 0.25])
    # targets 1, 128, 192 cost 1, 256, 768
    assert DartPropToDifficulty().allocate(Claims(rates), 1025).tolist() == [1, 256, 768]
    assert DartPropToDifficulty(target=6, least=4).allocate(Claims(rates), 36).tolist() == [4, 8, 24]


def test_hopeless_and_unknown_questions():
    # 40, 80, 2048 and the mean of them, 722.67
    counts = DartUniform().allocate(Claims(np.array([1.0, 0.5, 0.0, np.nan])), 2891)
    assert counts.tolist() == [40, 80, 2048, 723]
    assert DartUniform(most=100).allocate(Claims(np.array([1.0, 0.0])), 140).tolist() == [40, 100]


def test_the_most_holds_where_the_total_allows_it():
    assert DartUniform(most=100).allocate(Claims(np.array([1.0, 0.0])), 190).tolist() == [90, 100]
    assert DartUniform(most=100).allocate(Claims(np.array([1.0, 0.0])), 280).tolist() == [80, 200]  # no longer: in proportion
    assert DartUniform(most=100).allocate(Claims(np.array([1.0, 0.0])), 190, low=np.array([0, 120])).tolist() == [70, 120]


def test_the_same_trials_for_all_are_the_limit_of_a_target_out_of_reach():
    rates = np.array([0.9, 0.5, 0.1])
    assert DartUniform(target=10**6, most=52).allocate(Claims(rates), 3 * 52).tolist() == [52, 52, 52]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DartUniform(target=0), "target must be > 0"),
        (lambda: DartUniform(most=0), "most must be > 0"),
        (lambda: DartPropToDifficulty(target=0), "target must be > 0"),
        (lambda: DartPropToDifficulty(least=0), "least must lie"),
        (lambda: DartPropToDifficulty(target=3, least=4), "least must lie"),
        (lambda: DartPropToDifficulty(most=0), "most must be > 0"),
    ],
)
def test_ranges(make, message):
    with pytest.raises(ValueError, match=message):
        make()
