"""RIAC: progress of a region, cuts and draws."""

import json

import numpy as np
import pytest

from outlay.arms import Arm
from outlay.context import Context
from outlay.errors import InputError
from outlay.teachers.riac import Region, Riac, RiacSpace, learning_progress
from outlay.testing.teachers import check_teacher


def test_contract() -> None:
    check_teacher(Riac(most=40), steps=2, long=30)


def test_progress_by_hand() -> None:
    assert learning_progress([0.0, 1.0]) == 0
    assert learning_progress([0.0, 1.0, 1.0]) == 1
    assert learning_progress([1.0, 0.5, 0.25, 0.25]) == 0.5
    assert learning_progress([0.0, 0.5, 0.0, 1.0, 1.0]) == pytest.approx(2 / 3 - 0.25)


def test_regions_hold_their_lower_bounds_and_the_end_of_the_box() -> None:
    left, right = Region([0.0], [0.5]), Region([0.5], [1.0])
    for place, inside in ((0.0, left), (0.5, right), (1.0, right)):
        assert [left.holds([place]), right.holds([place])] == [inside is left, inside is right]


def full(space_of: Riac, rise: float = 1.0) -> RiacSpace:
    """Return a space in which rewards rise below ``x = .5`` alone."""
    space, rng = space_of.space(2, 0), np.random.default_rng(1)
    for step in range(space_of.most):
        point = rng.random((1, 2))
        space.update(point, np.array([rise * step / space_of.most if point[0, 0] < 0.5 else 0.5]))
    return space


def test_a_full_region_is_cut_where_progress_differs() -> None:
    space = full(Riac())
    assert len(space.regions) == 3 and [region.whole for region in space.regions] == [False, True, True]
    _, low, high = space.regions
    axis = int(low.high[1] == 1)
    assert axis == 1, "the cut is made across the first axis, on which progress hangs"
    assert abs(low.high[0] - 0.5) < 0.1 and low.high[0] == high.low[0]
    assert low.progress > 0.3 > 0.1 > high.progress
    assert len(low.tasks) + len(high.tasks) == 200
    assert all(low.holds(task[:2]) for task in low.tasks) and all(high.holds(task[:2]) for task in high.tasks)


def test_the_cut_region_goes_on_learning() -> None:
    space = full(Riac())
    root = space.regions[0].tasks
    space.update(np.array([[0.9, 0.5]]), np.array([0.125]))
    assert space.regions[0].tasks == [*root[1:], [0.9, 0.5, 0.125]]
    assert space.regions[2].tasks[-1] == [0.9, 0.5, 0.125] and space.regions[1].tasks[-1] != [0.9, 0.5, 0.125]
    assert len(space.regions) == 3


def test_where_no_cut_will_do_the_oldest_quarter_is_forgotten() -> None:
    space = Riac(most=8).space(1, 0)
    space.update(np.full((8, 1), 0.5), np.arange(8) / 8)
    assert [task[-1] for task in space.regions[0].tasks] == [k / 8 for k in range(2, 8)]
    assert space.regions[0].progress == pytest.approx(3 / 8) and space.regions[0].whole and space.attempts == 1
    narrow = Riac(most=8, width=0.5, part=0.0).space(1, 0)  # no random cut is exactly in the middle
    narrow.update(np.linspace(0, 1, 8)[:, None], np.arange(8) / 8)
    assert len(narrow.regions) == 1
    heavy = Riac(most=8, part=0.5, width=0.01).space(1, 0)
    heavy.update(np.array([[0.1]] * 7 + [[0.9]]), np.arange(8) / 8)
    assert len(heavy.regions) == 1


def test_draws_are_mixed_from_three_kinds() -> None:
    space, rng = Riac(explore=0.2, mutate=0.1).space(1, 0), np.random.default_rng(0)
    space.regions = [
        Region([0.0], [1.0], whole=False),
        Region([0.0], [0.1], [[0.05, 0.0], [0.05, 0.0], [0.05, 0.3]]),
        Region([0.9], [1.0], [[0.9, 0.0], [0.95, 0.9], [0.95, 0.9]]),
    ]
    assert [region.progress for region in space.regions] == pytest.approx([0, 0.15, 0.9])
    drawn = space.sample(20000, rng)[:, 0]
    # uniform .2 in the box; .7 in the regions, 1 : 6; .1 about their worst, which are .05 and .9
    middle = np.mean((drawn > 0.4) & (drawn < 0.5))
    assert abs(middle - 0.02) < 0.004
    assert abs(np.mean(drawn == 0) - 0.1 / 7 * 0.3085) < 0.003  # a mutation of .05 by .1 z is cut off where z < -.5
    assert abs(np.mean(drawn == 1) - 0.1 * 6 / 7 * 0.1587) < 0.004
    assert abs(np.mean((drawn > 0) & (drawn < 0.1)) - (0.02 + 0.1 + 0.1 / 7 * 0.383)) < 0.01


def test_without_progress_all_regions_are_alike() -> None:
    space = Riac(explore=0.0, mutate=0.0).space(1, 0)
    space.regions = [Region([0.0], [0.1]), Region([0.9], [1.0])]
    assert abs(float(np.mean(space.sample(4000, np.random.default_rng(0)) > 0.5)) - 0.5) < 0.03


def test_states_resume() -> None:
    rng = np.random.default_rng(0)
    points, rewards = rng.random((200, 2)), rng.random(200)
    whole, parts = Riac(most=40).space(2, 3), Riac(most=40).space(2, 3)
    whole.update(points, rewards)
    for start in range(0, 200, 30):
        parts.update(points[start : start + 30], rewards[start : start + 30])
        state = json.loads(json.dumps(parts.state_dict()))
        parts = Riac(most=40).space(2, 3)
        parts.load_state_dict(state)
    assert len(whole.regions) > 3 and whole.state_dict() == parts.state_dict()
    assert np.array_equal(whole.sample(20, np.random.default_rng(1)), parts.sample(20, np.random.default_rng(1)))


def test_refusals() -> None:
    for wrong in ({"most": 3}, {"tries": 0}, {"part": 0.6}, {"width": 0.0}, {"explore": 2.0}, {"explore": 0.5, "mutate": 0.6}):
        with pytest.raises(ValueError, match=list(wrong)[-1]):
            Riac(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="riac goes by places"):
        Riac().open([Arm("a")], Context(0))
