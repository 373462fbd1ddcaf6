"""Covar-GMM: times, covariances and what is drawn by them."""

import numpy as np
import pytest

from outlay.arms import Arm
from outlay.context import Context
from outlay.errors import InputError
from outlay.teachers.covar_gmm import CovarGmm
from outlay.testing.teachers import check_teacher

pytest.importorskip("sklearn.mixture")


def test_contract() -> None:
    check_teacher(CovarGmm(fit_every=52, most=3), steps=2, long=12)


def test_rows_are_place_time_and_reward() -> None:
    space = CovarGmm(fit_every=4, most=2).space(1, 0)
    space.update(np.array([[0.1], [0.2], [0.3]]), np.array([1.0, 0.5, 0.25]))
    assert space.recent == [[0.1, 0.0, 1.0], [0.2, 0.25, 0.5], [0.3, 0.5, 0.25]]
    space.update(np.array([[0.4], [0.7]]), np.array([0.0, 1.0]))
    assert space.recent == [[0.7, 0.0, 1.0]]


def test_interest_is_the_covariance_of_time_and_reward() -> None:
    covariances = np.zeros((2, 3, 3))
    covariances[:, 1, 2] = covariances[:, 2, 1] = [0.2, -0.3]
    covariances[:, 0, 2] = 9.0
    assert CovarGmm().space(1, 0).interest(np.zeros((2, 3)), covariances).tolist() == [0.2, 0.0]
    assert CovarGmm(falling=True).space(1, 0).interest(np.zeros((2, 3)), covariances).tolist() == [0.2, 0.3]


@pytest.mark.parametrize(("falling", "where"), [(False, "rising"), (True, "both")])
def test_what_rises_is_drawn(falling: bool, where: str) -> None:
    rng, time = np.random.default_rng(0), np.arange(240) / 240
    kind = np.arange(240) % 3  # rising at .1, still at .5, falling at .9
    places = np.array([0.1, 0.5, 0.9])[kind] + 0.01 * rng.standard_normal(240)
    rewards = np.choose(kind, [time, np.full(240, 0.5), 1 - time])
    space = CovarGmm(fit_every=240, explore=0.0, falling=falling).space(1, 0)
    space.update(places[:, None], rewards)
    counts = np.histogram(space.sample(2000, rng)[:, 0], [0, 0.3, 0.7, 1])[0] / 2000
    expected = [1, 0, 0] if where == "rising" else [0.5, 0, 0.5]
    np.testing.assert_allclose(counts, expected, atol=0.12)


def test_refusals() -> None:
    for wrong in ({"fit_every": 0}, {"explore": -0.5}, {"most": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CovarGmm(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="covar_gmm goes by places"):
        CovarGmm().open([Arm("a")], Context(0))
