import numpy as np
import pytest
from asked import CONTEXT, arms, asking

from outlay.teachers import Cures, EasyToHard, Examined, Floor, Gain, Pcl, Ranks, Screens, Sec, Sets


def test_shares_are_mixed() -> None:
    inner = EasyToHard().open(arms(5), CONTEXT).shares(asking())
    lessons = Floor(EasyToHard(), 0.25).open(arms(5), CONTEXT)
    assert np.allclose(lessons.shares(asking()), 0.75 * inner + 0.25 / 5)
    assert lessons.shares(asking()).min() == pytest.approx(0.05)
    counts = np.bincount(lessons.choose(asking(count=20000)), minlength=5)
    assert np.abs(counts / 20000 - lessons.shares(asking())).max() < 0.02


def test_no_floor_is_the_inner_teacher_and_a_whole_one_is_even() -> None:
    sec = Sec().open(arms(5), CONTEXT)
    assert np.array_equal(Floor(Sec(), 0.0).open(arms(5), CONTEXT).choose(asking()), sec.choose(asking()))
    assert np.allclose(Floor(EasyToHard(), 1.0).open(arms(5), CONTEXT).shares(asking()), 1 / 5)


@pytest.mark.parametrize("inner", [Sec(), Pcl(), Gain(), Cures(), Floor(Pcl())])
def test_it_has_what_the_inner_lessons_have(inner: Sec | Pcl | Gain | Cures | Floor) -> None:
    bare, floored = inner.open(arms(3, size=1), CONTEXT), Floor(inner).open(arms(3, size=1), CONTEXT)
    for protocol in (Screens, Ranks, Examined, Sets):
        assert isinstance(floored, protocol) == isinstance(bare, protocol)  # type: ignore[arg-type]


def test_what_is_passed_on() -> None:
    pcl = Floor(Pcl(over=3)).open(arms(3), CONTEXT)
    assert isinstance(pcl, Screens)
    assert pcl.over == 3
    assert pcl.screen(np.array([0.0, 0.5, 0.4]), asking(count=2)).tolist() == [1, 2]
    gain = Floor(Gain()).open(arms(3), CONTEXT)
    assert isinstance(gain, Ranks)
    gain.ranked(np.array([0.0, 1.0, 0.5]))
    assert gain.state_dict()["places"] == [2, 0, 1]
    assert [Floor(Cures()).open(arms(2, size), CONTEXT).sets for size in (1, None)] == [True, False]  # type: ignore[attr-defined]


def test_evaluations_are_passed_on() -> None:
    seen = []

    class Listening:
        def open(self, arms: object, context: object) -> object:
            lessons = Sec().open(list(range(2)), CONTEXT)  # type: ignore[arg-type]
            lessons.examined = lambda losses, progress: seen.append((losses.tolist(), progress))  # type: ignore[attr-defined]
            return lessons

    lessons = Floor(Listening()).open(arms(2), CONTEXT)  # type: ignore[arg-type]
    assert isinstance(lessons, Examined)
    lessons.examined(np.array([0.5, 0.25]), 0.75)
    assert seen == [([0.5, 0.25], 0.75)]


@pytest.mark.parametrize("floor", [-0.1, 1.1])
def test_ranges(floor: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        Floor(Sec(), floor)
