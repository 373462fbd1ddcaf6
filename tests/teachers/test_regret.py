"""On bandits whose success rates are known, teachers find what is worth asking, and notice when it changes."""

import functools

import numpy as np
import pytest

from outlay.errors import InputError
from outlay.estimators import Beta, Estimator, Windowed
from outlay.teachers import Cures, Dump, Floor, HistoricalVariance, Lim, Pcl, Sec, Teacher, Uniform
from outlay.testing.bandits import STATIONARY, SWITCHING, Bandit, regrets

SEEDS = range(4)
BANDITS = {"stationary": STATIONARY, "switching": SWITCHING}


@functools.cache
def mean_regrets(teacher: Teacher | None, estimator: Estimator, bandit: str) -> tuple[float, ...]:
    return tuple(float(regrets(teacher, BANDITS[bandit], estimator, seed=seed).mean()) for seed in SEEDS)


@pytest.mark.parametrize("bandit", ["stationary", "switching"])
@pytest.mark.parametrize(
    ("teacher", "estimator", "margin"),
    [
        (Sec(), Windowed(), 0.03),
        (Sec(tau=0.2), Windowed(), 0.2),
        (Dump(), Windowed(), 0.2),
        (Cures(), Windowed(), 0.2),
        (Cures(), Beta(decay=0.9), 0.1),
        (Floor(Cures(), 0.1), Windowed(), 0.15),
        (Pcl(), Windowed(), 0.12),
        (Pcl(), Beta(decay=0.9), 0.1),
    ],
    ids=repr,
)
def test_teachers_that_follow_the_signal_beat_the_even_one(teacher: Teacher, estimator: Estimator, margin: float, bandit: str) -> None:
    mine, even = mean_regrets(teacher, estimator, bandit), mean_regrets(Uniform(), Windowed(), bandit)
    assert all(one < other for one, other in zip(mine, even, strict=True)), (mine, even)
    assert np.mean(mine) < np.mean(even) - margin, (mine, even)


@pytest.mark.parametrize("teacher", [Lim(), HistoricalVariance()])
def test_teachers_that_measure_first_learn_from_the_best_arm(teacher: Teacher) -> None:
    found = np.mean([regrets(teacher, STATIONARY, Windowed(), seed=seed) for seed in SEEDS], axis=0)
    measured = found[:16].mean()
    assert measured == pytest.approx(np.mean(mean_regrets(Uniform(), Windowed(), "stationary")), abs=0.05)
    assert found[24:].mean() < 0.25 * measured
    # what has been selected is not looked at again: when another arm is worth asking it is not found
    switched = np.mean([regrets(teacher, SWITCHING, Windowed(), seed=seed) for seed in SEEDS], axis=0)
    assert switched[40:].mean() > measured


def test_those_that_follow_find_the_new_arm() -> None:
    for teacher in (Sec(tau=0.2), Dump()):
        late = np.mean([regrets(teacher, SWITCHING, Windowed(), seed=seed)[-15:] for seed in SEEDS])
        assert late < 0.1


def test_the_oracle_and_the_even_teacher() -> None:
    assert np.array_equal(regrets(None, SWITCHING, Windowed()), np.zeros(80))
    expected = 0.5 - STATIONARY.signals(0.0).mean()
    # twenty questions are two whole rounds over ten arms
    assert np.allclose(regrets(Uniform(), SWITCHING, Windowed(), batches=4, count=20), expected)


def test_a_bandit_switches_at_half_time() -> None:
    bandit = Bandit((0.5, 0.1), (1.0, 0.2))
    assert bandit.at(0.49).tolist() == [0.5, 0.1]
    assert bandit.at(0.5).tolist() == [1.0, 0.2]
    assert np.allclose(bandit.signals(0.0), [0.5, 0.3])
    assert Bandit((0.5,)).at(0.9).tolist() == [0.5]
    assert sorted(SWITCHING.later) == sorted(SWITCHING.rates)
    for bad in ((), (0.5, 0.5)):
        with pytest.raises(InputError, match="a bandit has arms"):
            Bandit((0.5,) if bad else (), bad)


def test_seeds_are_all_that_differs() -> None:
    one, again, other = (regrets(Dump(), STATIONARY, Windowed(), batches=10, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
