import numpy as np
import pytest
from asked import CONTEXT, answered, arms, asking, used

from outlay.arms import Outcome
from outlay.teachers import Dump
from outlay.teachers.dump import sizes


def test_bounds_by_hand() -> None:
    lessons = Dump(tau=0.5).open(arms(3), CONTEXT)
    assert np.array_equal(lessons.shares(asking()), np.full(3, 1 / 3))
    batch = [answered(0, 1, 4), answered(1, 4, 4), answered(0, 2, 4), Outcome(2, ())]
    lessons.update(used(batch), batch)
    first = (4 * 2 * np.sqrt(0.25 * 0.75) + 4 * 1.0) / 8
    explored = np.sqrt(2 * np.log(13) / (np.array([8, 4, 0]) + 1))
    assert np.allclose(lessons.bounds(), np.array([first, 0.0, 0.0]) + explored)
    scores = np.exp(lessons.bounds() / 0.5)
    assert np.allclose(lessons.shares(asking()), scores / scores.sum())


def test_nothing_but_counts_matters_while_nothing_varies() -> None:
    lessons = Dump().open(arms(3), CONTEXT)
    batch = [answered(0, 4, 4), answered(0, 0, 4), answered(1, 0, 4)]
    lessons.update(used(batch), batch)
    shares = lessons.shares(asking())
    assert shares[2] > shares[1] > shares[0] > 0


def test_many_answers_leave_the_softmax_of_the_means() -> None:
    lessons = Dump(tau=0.3).open(arms(2), CONTEXT)
    lessons._latest, lessons._counts = {0: [0.9], 1: [0.6]}, {0: 10**12, 1: 10**12}
    shares = lessons.shares(asking())
    assert np.log(shares[0] / shares[1]) == pytest.approx(1.0, abs=1e-4)
    without = Dump(tau=0.3, weight=0.0).open(arms(2), CONTEXT)
    without._latest, without._counts = {0: [0.9], 1: [0.6]}, {0: 1, 1: 7}
    shares = without.shares(asking())
    assert np.log(shares[0] / shares[1]) == pytest.approx(1.0)


def test_the_window_keeps_the_latest() -> None:
    lessons = Dump(window=5, weight=0.0).open(arms(1), CONTEXT)
    for right in (2, 2, 4):
        lessons.update(np.array([0]), [answered(0, right, 4)])
    assert lessons.state_dict()["latest"] == [(0, [1.0, 0.0, 0.0, 0.0, 0.0])]
    assert lessons.state_dict()["counts"] == [(0, 12)]


def test_sizes_of_advantages() -> None:
    assert sizes(answered(0, 1, 4)) == pytest.approx([np.sqrt(3), *[1 / np.sqrt(3)] * 3])
    assert np.mean(sizes(answered(0, 1, 4))) == pytest.approx(answered(0, 1, 4).magnitude)
    assert sizes(answered(0, 4, 4)) == [0.0] * 4
    assert sizes(Outcome(0, (1.0, 0.0), (-0.5, 0.2))) == [0.5, 0.2]


@pytest.mark.parametrize("bad", [{"tau": 0.0}, {"window": 0}, {"weight": -1.0}])
def test_ranges(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Dump(**bad)  # type: ignore[arg-type]
