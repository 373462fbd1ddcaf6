"""Reverse starts: where the frontier stands, and when it moves."""

import json

import numpy as np
import pytest

from outlay.arms import Arm, Outcome
from outlay.context import Context
from outlay.errors import InputError
from outlay.rng import numpy_generator
from outlay.teachers import Asking
from outlay.teachers.reverse_starts import Frontier, ReverseLessons, ReverseStarts
from outlay.testing.teachers import check_teacher

#: distances to the goal; two starts are equally far
ARMS = [Arm(str(i), difficulty=distance) for i, distance in enumerate((4.0, 1.0, 2.5, 1.0, 9.0))]


def asking() -> Asking:
    return Asking(4, 0.0, np.zeros(1), np.zeros(1), numpy_generator(0, "test"))


def tell(lessons: ReverseLessons, arm: int, *rates: float) -> None:
    lessons.update(np.full(len(rates), arm), [Outcome(arm, (rate,)) for rate in rates])


def test_contract() -> None:
    check_teacher(ReverseStarts(threshold=0.6, window=8), steps=4, long=10)


def test_starts_move_back_one_distance_at_a_time() -> None:
    lessons = ReverseStarts(threshold=0.75, window=4, width=2).open(ARMS, Context(0))
    assert lessons.shares(asking()).tolist() == [0, 0.5, 0, 0.5, 0]
    tell(lessons, 1, 1.0, 0.0, 0.5)
    tell(lessons, 3, 1.0)
    assert lessons.frontier.level == 0  # .625
    tell(lessons, 3, 1.0)
    assert lessons.frontier.level == 0  # the last four: 0, .5, 1, 1
    tell(lessons, 3, 0.5)
    assert lessons.frontier.level == 1  # .5, 1, 1, .5: enough
    assert lessons.shares(asking()).tolist() == [0, 0.25, 0.5, 0.25, 0]
    tell(lessons, 2, 1.0, 1.0, 1.0)
    assert lessons.frontier.level == 1  # success before it moved does not count again
    tell(lessons, 2, 1.0)
    assert lessons.frontier.level == 2
    assert lessons.shares(asking()).tolist() == [0.5, 0, 0.5, 0, 0]


def test_what_lies_behind_the_frontier_and_the_unjudged_do_not_count() -> None:
    lessons = ReverseStarts(window=2).open(ARMS, Context(0))
    for arm in (0, 2, 4):
        tell(lessons, arm, 1.0, 1.0, 1.0)
    lessons.update(np.array([1, 1, 1]), [Outcome(1, ())] * 3)
    lessons.update(np.array([1, 1, 1]), [])
    assert lessons.state_dict() == {"level": 0, "recent": []}


def test_one_batch_can_move_it_only_by_what_came_at_each_frontier() -> None:
    lessons = ReverseStarts(window=2).open(ARMS, Context(0))
    tell(lessons, 1, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert lessons.state_dict() == {"level": 1, "recent": []}


def test_the_last_distance_is_the_end() -> None:
    frontier = Frontier(1, 0.5, 1)
    for _ in range(3):
        for level in (0, 1):
            frontier.saw(level, 1.0)
    assert frontier.state_dict() == {"level": 1, "recent": []}


def test_rates_that_sum_to_the_threshold_reach_it() -> None:
    frontier = Frontier(1, 0.1, 10)
    for _ in range(10):
        frontier.saw(0, 0.1)  # their sum is .9999999999999999
    assert frontier.level == 1


def test_states_resume() -> None:
    lessons = ReverseStarts(window=3).open(ARMS, Context(0))
    tell(lessons, 1, 1.0, 1.0, 1.0)
    tell(lessons, 2, 0.5)
    other = ReverseStarts(window=3).open(ARMS, Context(0))
    other.load_state_dict(json.loads(json.dumps(lessons.state_dict())))
    assert other.state_dict() == {"level": 1, "recent": [0.5]}
    assert np.array_equal(lessons.shares(asking()), other.shares(asking()))


def test_refusals() -> None:
    for wrong in ({"threshold": 1.5}, {"window": 0}, {"width": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ReverseStarts(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="reverse_starts goes by difficulty"):
        ReverseStarts().open([Arm("a")], Context(0))


def test_a_long_chain_is_walked_from_its_beginning_where_random_walks_hardly_arrive() -> None:
    """Steps right reach the goal after as many as the distance; a policy knows the right step only where it has once arrived from."""

    def solved(lessons: ReverseLessons | None, episodes: int = 1500) -> float:
        rng, known = np.random.default_rng(0), np.zeros(13)  # probability of the right step at each distance, but for chance
        for episode in range(episodes):
            arm = (
                11
                if lessons is None
                else int(lessons.choose(Asking(1, 0, np.zeros(1), np.zeros(1), numpy_generator(1, "walk", episode)))[0])
            )
            path = range(arm + 1, 0, -1)
            success = bool(np.all(rng.random(arm + 1) < np.maximum(known[list(path)], 0.3)))
            if success:
                known[1 : arm + 2] += 0.2 * (1 - known[1 : arm + 2])
            if lessons is not None:
                lessons.update(np.array([arm]), [Outcome(arm, (float(success),))])
        return float(np.prod(np.maximum(known[1:], 0.3)))

    arms = [Arm(str(distance), difficulty=distance) for distance in range(1, 13)]
    assert solved(ReverseStarts(window=16).open(arms, Context(0))) > 0.5 > 0.01 > solved(None)
