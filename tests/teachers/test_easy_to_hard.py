import numpy as np
import pytest
from asked import CONTEXT, answered, asking, used

from outlay.arms import Arm, Outcome
from outlay.errors import InputError
from outlay.teachers import EasyToHard

#: three levels, of which the second has two arms, in no order
ARMS = [Arm("b", difficulty=2.0), Arm("c", difficulty=5.0), Arm("a", difficulty=1.0), Arm("B", difficulty=2.0)]


@pytest.mark.parametrize(
    ("teacher", "progress", "shares"),
    [
        (EasyToHard(), 0.0, [0, 0, 1, 0]),
        (EasyToHard(), 0.3333, [0, 0, 1, 0]),
        (EasyToHard(), 0.3334, [1 / 3, 0, 1 / 3, 1 / 3]),
        (EasyToHard(), 0.67, [1 / 4] * 4),
        (EasyToHard(), 1.0, [1 / 4] * 4),
        (EasyToHard(until=0.5), 0.34, [1 / 4] * 4),
        (EasyToHard(width=1), 0.5, [1 / 2, 0, 0, 1 / 2]),
        (EasyToHard(width=1), 1.0, [0, 1, 0, 0]),
        (EasyToHard(width=2), 0.9, [1 / 3, 1 / 3, 0, 1 / 3]),
        (EasyToHard(reverse=True), 0.0, [0, 1, 0, 0]),
        (EasyToHard(reverse=True, width=1), 1.0, [0, 0, 1, 0]),
    ],
)
def test_levels_open_with_progress(teacher: EasyToHard, progress: float, shares: list[float]) -> None:
    lessons = teacher.open(ARMS, CONTEXT)
    assert np.allclose(lessons.shares(asking(progress=progress)), shares)
    counts = np.bincount(lessons.choose(asking(progress=progress, count=12)), minlength=4)
    assert np.array_equal(counts, np.round(12 * np.array(shares)))


def test_levels_open_with_success() -> None:
    lessons = EasyToHard(advance=0.75, answers=8).open(ARMS, CONTEXT)

    def learn(*batch: Outcome) -> int:
        lessons.update(used(batch), batch)
        return lessons.newest(1.0)

    assert learn(answered(2, 4, 4)) == 0  # four answers are too few
    assert learn(answered(2, 2, 4)) == 0  # 6 of 8 are not above 0.75
    assert learn(answered(0, 8, 8), answered(1, 8, 8)) == 0  # other levels do not count
    assert learn(answered(2, 3, 4), Outcome(2, ())) == 0  # the latest eight: 5 right
    assert learn(answered(2, 4, 4)) == 1  # the latest eight: 7 right
    assert learn(answered(0, 4, 4)) == 1  # what was right before does not count on
    assert learn(answered(3, 4, 4)) == 2
    assert learn(answered(1, 8, 8)) == 2  # the last stays
    assert np.allclose(lessons.shares(asking(progress=0.0)), 1 / 4)


def test_arms_need_difficulties() -> None:
    with pytest.raises(InputError, match="'nobody knows'"):
        EasyToHard().open([*ARMS, Arm("nobody knows")], CONTEXT)


@pytest.mark.parametrize("bad", [{"until": 0.0}, {"until": 1.5}, {"width": 0}, {"advance": 1.0}, {"advance": -0.1}, {"answers": 0}])
def test_ranges(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        EasyToHard(**bad)  # type: ignore[arg-type]
