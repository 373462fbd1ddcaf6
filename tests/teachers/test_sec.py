import numpy as np
import pytest
from asked import CONTEXT, answered, arms, asking, used
from hypothesis import given
from hypothesis import strategies as st

from outlay.arms import Outcome
from outlay.teachers import Sec


@given(st.floats(0.01, 1.0), st.integers(0, 8), st.integers(1, 30))
def test_a_constant_reward_is_approached_geometrically(alpha: float, right: int, steps: int) -> None:
    lessons = Sec(alpha=alpha).open(arms(3), CONTEXT)
    batch = [answered(1, right, 8)]
    for _ in range(steps):
        lessons.update(used(batch), batch)
    rate = right / 8
    expected = 2 * np.sqrt(rate * (1 - rate)) * (1 - (1 - alpha) ** steps)
    assert lessons.values[1] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert lessons.values[0] == lessons.values[2] == 0.0


def test_what_is_mastered_fades_and_what_is_absent_stays() -> None:
    lessons = Sec(alpha=0.3).open(arms(2), CONTEXT)
    lessons.values = [0.8, 0.6]
    for t in range(1, 6):
        lessons.update(np.array([0]), [answered(0, 8, 8)])
        assert lessons.values[0] == pytest.approx(0.8 * 0.7**t)
    assert lessons.values[1] == 0.6


def test_answers_count_alike_however_they_are_grouped() -> None:
    lessons = Sec(alpha=1.0).open(arms(1), CONTEXT)
    batch = [answered(0, 1, 2), answered(0, 0, 6), Outcome(0, ())]
    lessons.update(used(batch), batch)
    assert lessons.values[0] == pytest.approx(1.0 * 2 / 8)


def test_the_objectives_advantages_are_what_counts() -> None:
    lessons = Sec(alpha=1.0).open(arms(1), CONTEXT)
    lessons.update(np.array([0]), [Outcome(0, (1.0, 0.0), (0.25, -0.75))])
    assert lessons.values[0] == pytest.approx(0.5)


def test_shares_are_a_softmax() -> None:
    lessons = Sec(tau=0.2).open(arms(3), CONTEXT)
    assert np.allclose(lessons.shares(asking()), 1 / 3)
    lessons.values = [0.1, 0.5, 0.9]
    shares = lessons.shares(asking())
    assert np.allclose(np.log(shares[1:] / shares[:-1]), 0.4 / 0.2)
    lessons.values = [10.1, 10.5, 10.9]
    assert np.allclose(lessons.shares(asking()), shares)
    even = Sec(tau=1e9).open(arms(3), CONTEXT)
    even.values = [0.1, 0.5, 0.9]
    assert np.allclose(even.shares(asking()), 1 / 3, atol=1e-8)


@pytest.mark.parametrize("bad", [{"alpha": 0.0}, {"alpha": 1.1}, {"tau": 0.0}])
def test_ranges(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Sec(**bad)
