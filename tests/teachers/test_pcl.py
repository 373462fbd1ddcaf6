import numpy as np
import pytest
from asked import CONTEXT, arms, asking
from hypothesis import given
from hypothesis import strategies as st

from outlay.teachers import Pcl, Screens


def test_the_nearest_to_tau_stay() -> None:
    lessons = Pcl(over=2).open(arms(6), CONTEXT)
    assert isinstance(lessons, Screens)
    assert lessons.over == 2
    rates = np.array([0.9, 0.45, 0.1, 0.6, 0.0, 1.0])
    assert lessons.screen(rates, asking(count=3)).tolist() == [0, 1, 3]
    assert Pcl(tau=0.0).open(arms(6), CONTEXT).screen(rates, asking(count=3)).tolist() == [1, 2, 4]


def test_the_unknown_are_tried_and_the_first_of_equals_stay() -> None:
    lessons = Pcl().open(arms(4), CONTEXT)
    assert lessons.screen(np.array([0.49, np.nan, 0.6, np.nan]), asking(count=2)).tolist() == [1, 3]
    assert lessons.screen(np.array([0.75, 0.25, 0.75, 0.25]), asking(count=3)).tolist() == [0, 1, 2]
    many = np.tile([0.0, 0.75, 0.25], 200)
    assert lessons.screen(many, asking(count=100)).tolist() == np.flatnonzero(many)[:100].tolist()
    assert Pcl(tau=0.9).open(arms(2), CONTEXT).screen(np.array([0.5, np.nan]), asking(count=1)).tolist() == [1]


def test_one_candidate_each_is_plain_sampling() -> None:
    lessons = Pcl(over=1).open(arms(5), CONTEXT)
    assert lessons.screen(np.array([0.0, 1.0, 0.5]), asking(count=3)).tolist() == [0, 1, 2]
    assert np.allclose(lessons.shares(asking()), 1 / 5)
    assert sorted(lessons.choose(asking(count=5)).tolist()) == [0, 1, 2, 3, 4]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0, 1), st.data())
def test_nobody_left_out_is_nearer(rates: list[float], tau: float, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(rates)))
    kept = Pcl(tau=tau).open(arms(2), CONTEXT).screen(np.array(rates), asking(count=count))
    away = np.abs(np.array(rates) - tau)
    left = np.delete(away, kept)
    assert len(kept) == count
    assert not len(left) or away[kept].max() <= left.min()


@pytest.mark.parametrize("bad", [{"over": 0}, {"tau": 1.1}])
def test_ranges(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Pcl(**bad)  # type: ignore[arg-type]
