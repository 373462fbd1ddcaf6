import math

import numpy as np
import pytest
from asked import CONTEXT, answered, arms, asking, used
from hypothesis import given
from hypothesis import strategies as st

from outlay.arms import Outcome
from outlay.teachers import Gain, Ranks
from outlay.teachers.gain import angle_concentration


def test_the_window_is_a_gaussian_over_the_order() -> None:
    lessons = Gain(sigma=2.0).open(arms(4), CONTEXT)
    assert isinstance(lessons, Ranks)
    lessons.ranked(np.array([0.2, 0.9, -0.5, 0.2]))
    assert lessons.places == [1, 0, 3, 2]
    lessons.mu = 1.0
    weights = np.exp(-0.5 * ((np.array([1, 0, 3, 2]) - 1.0) / 2.0) ** 2)
    assert np.allclose(lessons.weights(), weights / weights.sum())
    assert np.allclose(lessons.shares(asking(count=1)), weights / weights.sum())


def test_the_window_moves_by_accuracy() -> None:
    lessons = Gain(step=10.0, alpha=2.0, beta=0.5, most=1000.0).open(arms(100), CONTEXT)

    def moved(*batch: Outcome) -> float:
        before = lessons.mu
        lessons.update(used(batch), batch)
        return lessons.mu - before

    assert moved(answered(0, 3, 4), answered(1, 3, 4), Outcome(2, ())) == pytest.approx(10 * math.tanh(2 * 0.25))
    assert moved(answered(0, 1, 2)) == 0.0
    assert moved(answered(0, 0, 4)) == 0.0
    assert moved(Outcome(0, ())) == 0.0
    assert moved(answered(0, 4, 4), answered(0, 0, 2)) == pytest.approx(10 * math.tanh(2 * (4 / 6 - 0.5)))
    bounded = Gain(step=10.0, least=-3.0, most=2.0).open(arms(100), CONTEXT)
    bounded.mu = 50.0
    bounded.update(np.array([0]), [answered(0, 4, 4)])
    assert bounded.mu == 52.0
    bounded.update(np.array([0]), [answered(0, 0, 4)])
    assert bounded.mu == 49.0


@given(st.lists(st.integers(0, 4), max_size=20))
def test_the_window_never_goes_back_nor_beyond_the_list(right: list[int]) -> None:
    lessons, last = Gain().open(arms(600), CONTEXT), 0.0
    for one in right:
        lessons.update(np.array([0]), [answered(0, one, 4)])
        assert last <= lessons.mu <= 599
        last = lessons.mu


def test_a_wide_window_is_even_and_a_large_draw_takes_all() -> None:
    assert np.allclose(Gain(sigma=1e9).open(arms(5), CONTEXT).weights(), 1 / 5)
    narrow = Gain(sigma=0.01).open(arms(5), CONTEXT)
    assert sorted(narrow.choose(asking(count=5)).tolist()) == [0, 1, 2, 3, 4]
    assert narrow.choose(asking(count=1)).tolist() == [0]


def test_concentration_of_angles() -> None:
    same = np.tile([3.0, 4.0], (5, 1)) * np.arange(1, 6)[:, None]
    assert angle_concentration(same, same) == pytest.approx(1.0)
    assert angle_concentration(same, -same, weight=1.0) == pytest.approx(0.0)
    assert angle_concentration(same, -same, weight=3.0) == pytest.approx((1 - 3) / 4)
    assert angle_concentration(np.eye(4), np.zeros((0, 4))) == pytest.approx(1 / 4)
    question, system = np.random.default_rng(0).normal(size=(6, 3)), np.random.default_rng(1).normal(size=(4, 3))

    def cosines(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x in a for y in b]))

    expected = (cosines(question, question) + 8 * cosines(question, system)) / 9
    assert angle_concentration(question, system) == pytest.approx(expected)
    assert angle_concentration(np.zeros((2, 3)), system) == 0.0


@pytest.mark.parametrize("bad", [{"step": -1.0}, {"alpha": -1.0}, {"beta": 2.0}, {"sigma": 0.0}, {"least": 5.0, "most": 4.0}])
def test_ranges(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Gain(**bad)
