"""What teachers over continuous tasks share: places, nearest arms, shares, mixtures."""

import numpy as np
import pytest

from outlay.arms import Arm, Outcome
from outlay.context import Context
from outlay.errors import InputError
from outlay.rng import numpy_generator
from outlay.teachers import Asking
from outlay.teachers.task_space import RandomPoint, fit_mixture, nearest, picked, places, proportional
from outlay.testing.teachers import check_teacher

sklearn = pytest.importorskip("sklearn.mixture")


def asking(count: int = 8, stream: int = 0) -> Asking:
    return Asking(count, 0.0, np.full(2, np.nan), np.zeros(2), numpy_generator(0, "test", stream))


def test_contract() -> None:
    check_teacher(RandomPoint(), steps=2, long=10)


def test_ties_go_to_the_first() -> None:
    found = nearest(np.array([[0.0], [1.0], [1.0]]), np.array([[0.5], [0.50001], [1.0], [0.2]]))
    assert found.tolist() == [0, 1, 1, 0]
    many = np.linspace(0, 1, 3000)[:, None]  # more than one piece
    assert np.array_equal(nearest(np.array([[0.1], [0.6]]), many), (many[:, 0] > 0.35).astype(int))


def test_shares_are_the_volume_nearest_to_each_arm() -> None:
    arms = [Arm("a", point=(0.0,)), Arm("b", point=(0.2,)), Arm("c", point=(1.0,))]
    lessons = RandomPoint().open(arms, Context(3))
    np.testing.assert_allclose(lessons.shares(asking()), [0.1, 0.5, 0.4], atol=0.015)
    assert np.array_equal(lessons.shares(asking(stream=1)), lessons.shares(asking(stream=2)))
    chosen = lessons.choose(asking(4000))
    np.testing.assert_allclose(np.bincount(chosen) / 4000, [0.1, 0.5, 0.4], atol=0.03)


def test_arms_need_places() -> None:
    with pytest.raises(InputError, match="equally many coordinates.*'b' has"):
        RandomPoint().open([Arm("a", point=(0.5,)), Arm("b")], Context(0))
    with pytest.raises(InputError, match="'b' has"):
        places([Arm("a", point=(0.5,)), Arm("b", point=(0.5, 0.1))], "x")
    with pytest.raises(InputError, match="must lie in"):
        places([Arm("a", point=(1.5,))], "x")


def test_what_came_is_told_at_the_arms_place_and_the_unjudged_are_left_out() -> None:
    told = []

    class Listening:
        def update(self, points: np.ndarray, rewards: np.ndarray) -> None:
            told.append((points.tolist(), rewards.tolist()))

    lessons = RandomPoint().open([Arm("a", point=(0.25,)), Arm("b", point=(0.75,))], Context(0))
    lessons.space = Listening()  # type: ignore[assignment]
    lessons.update(np.array([1, 0, 0]), [Outcome(1, (1.0, 0.0, 2.0, 1.0)), Outcome(0, ()), Outcome(0, (-1.0,))])
    lessons.update(np.array([1]), [])
    assert told == [([[0.75], [0.25]], [0.75, 0.0])]


def test_proportions() -> None:
    assert proportional(np.array([1.0, 3.0])).tolist() == [0.25, 0.75]
    assert proportional(np.zeros(4)).tolist() == [0.25] * 4
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(np.bincount(picked(np.array([0.25, 0.0, 0.75]), 4000, rng)) / 4000, [0.25, 0, 0.75], atol=0.03)


def test_the_mixture_of_least_aic_is_fitted() -> None:
    rng = np.random.default_rng(1)
    rows = np.concatenate([centre + 0.02 * rng.standard_normal((80, 2)) for centre in ([0, 0], [1, 0], [0, 1])])
    means, covariances = fit_mixture(rows, 6, 7)
    criteria = {k: sklearn.GaussianMixture(k, n_init=1, random_state=7).fit(rows).aic(rows) for k in range(2, 7)}
    assert len(means) == min(criteria, key=criteria.__getitem__)
    assert covariances.shape == (len(means), 2, 2)
    assert all(np.abs(means - centre).sum(axis=1).min() < 0.05 for centre in ([0, 0], [1, 0], [0, 1]))


def test_no_more_components_than_different_rows() -> None:
    assert len(fit_mixture(np.zeros((20, 2)), 10, 0)[0]) == 1
    assert len(fit_mixture(np.array([[0.0, 0.0], [1.0, 1.0]] * 10), 10, 0)[0]) == 2
