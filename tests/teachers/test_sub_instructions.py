"""Sub-instructions: sizes, warm starts, and the buttons that plain learning never finds."""

import json
import math

import numpy as np
import pytest

from outlay.arms import Arm, Outcome
from outlay.context import Context
from outlay.errors import InputError
from outlay.rng import numpy_generator
from outlay.teachers import Asking
from outlay.teachers.sub_instructions import SubInstructionLessons, SubInstructions
from outlay.testing.teachers import check_teacher


def arms(*numbers: float) -> list[Arm]:
    return [Arm(f"{place}", difficulty=number) for place, number in enumerate(numbers)]


def asking(progress: float = 0.0, draw: int = 0) -> Asking:
    return Asking(1, progress, np.zeros(1), np.zeros(1), numpy_generator(0, "test", draw))


def tell(lessons: SubInstructionLessons, arm: int, *rates: float) -> None:
    lessons.update(np.full(len(rates), arm), [Outcome(arm, (rate,)) for rate in rates])


@pytest.mark.parametrize(
    "teacher",
    [SubInstructions(threshold=0.6, window=8), SubInstructions(grow="schedule", keep=False, warm=1.0), SubInstructions(warm=0.0)],
    ids=["success", "schedule", "cold"],
)
def test_contract(teacher: SubInstructions) -> None:
    check_teacher(teacher, steps=3, long=10)


def test_without_a_warm_start_only_the_sizes_in_play_are_asked() -> None:
    lessons = SubInstructions(warm=0.0, window=2).open(arms(1, 2, 2, 3), Context(0))
    assert lessons.shares(asking()).tolist() == [1, 0, 0, 0]
    tell(lessons, 0, 1.0, 1.0)
    assert lessons.shares(asking()).tolist() == [0.5, 0.25, 0.25, 0]
    alone = SubInstructions(warm=0.0, window=2, keep=False).open(arms(1, 2, 2, 3), Context(0))
    tell(alone, 0, 1.0, 1.0)
    assert alone.shares(asking()).tolist() == [0, 0.5, 0.5, 0]


def test_98_per_cent_are_needed() -> None:
    lessons = SubInstructions(window=50).open(arms(1, 2), Context(0))
    tell(lessons, 0, *[1.0] * 48, 0.0, 0.0)
    assert lessons.level(0.0) == 0
    tell(lessons, 0, *[1.0] * 48)
    assert lessons.level(0.0) == 0  # the two still count
    tell(lessons, 0, 1.0)
    assert lessons.level(0.0) == 1  # 49 of 50


def test_success_at_other_sizes_does_not_count() -> None:
    lessons = SubInstructions(window=1, threshold=0.5).open(arms(0, 1, 2), Context(0))
    tell(lessons, 0, 1.0)
    tell(lessons, 2, 1.0)
    lessons.update(np.array([1]), [Outcome(1, ())])
    assert lessons.level(0.0) == 0
    tell(lessons, 1, 1.0)
    assert lessons.level(0.0) == 1
    tell(lessons, 1, 1.0)
    assert lessons.level(0.0) == 1


def test_the_schedule_gives_each_size_an_equal_piece() -> None:
    lessons = SubInstructions(grow="schedule", until=0.8, warm=0.0, keep=False).open(arms(1, 2, 5, 6), Context(0))
    assert [lessons.level(progress) for progress in (0, 0.19, 0.21, 0.39, 0.41, 0.59, 0.61, 0.8, 1.0)] == [0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert lessons.shares(asking(0.5)).tolist() == [0, 0, 1, 0]


def test_warm_starts_leave_a_binomial_number() -> None:
    teacher = SubInstructions(grow="schedule", until=0.1, keep=False, warm=0.6, cold=0.5)
    assert [teacher.chance(progress) for progress in (0.0, 0.25, 0.5, 0.9)] == pytest.approx([0.6, 0.3, 0, 0])
    lessons = teacher.open(arms(0, 1, 2, 3), Context(0))
    p = teacher.chance(0.2)
    assert lessons.shares(asking(0.2)) == pytest.approx([math.comb(3, r) * (1 - p) ** r * p ** (3 - r) for r in range(4)])
    without = teacher.open(arms(1, 2, 3), Context(0)).shares(asking(0.2))
    assert without == pytest.approx(lessons.shares(asking(0.2))[1:] / (1 - p**3))
    assert lessons.shares(asking(0.5)).tolist() == [0, 0, 0, 1]  # p = 0: the task itself


def test_all_done_beforehand_is_solved_already() -> None:
    teacher = SubInstructions(grow="schedule", keep=False, warm=1.0)
    assert teacher.open(arms(0, 1, 2), Context(0)).shares(asking()).tolist() == [1, 0, 0]
    assert teacher.open(arms(3, 1, 2), Context(0)).shares(asking()).tolist() == [0, 1, 0]
    assert SubInstructions().open(arms(0, 0), Context(0)).shares(asking()).tolist() == [0.5, 0.5]


def test_large_sizes_do_not_overflow() -> None:
    lessons = SubInstructions(grow="schedule", until=0.1, keep=False).open(arms(1, 2500, 5000), Context(0))
    shares = lessons.shares(asking(0.25))
    assert np.all(np.isfinite(shares)) and shares.sum() == pytest.approx(1)


def test_states_resume() -> None:
    lessons = SubInstructions(window=2).open(arms(1, 2, 3), Context(0))
    tell(lessons, 0, 1.0, 1.0)
    tell(lessons, 1, 1.0)
    other = SubInstructions(window=2).open(arms(1, 2, 3), Context(0))
    other.load_state_dict(json.loads(json.dumps(lessons.state_dict())))
    assert other.state_dict() == {"level": 1, "recent": [1.0]}
    assert np.array_equal(other.shares(asking()), lessons.shares(asking()))


def test_refusals() -> None:
    wrongs = ({"grow": "never"}, {"until": 0.0}, {"threshold": 2.0}, {"window": 0}, {"warm": -0.1}, {"cold": 0.0})
    for wrong in wrongs:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SubInstructions(**wrong)  # type: ignore[arg-type]
    for number in (None, 1.5, -1.0):
        with pytest.raises(InputError, match="sub_instructions"):
            SubInstructions().open([Arm("a", difficulty=number)], Context(0))


def pressed(teacher: SubInstructions | None, seed: int, buttons: int = 6, steps: int = 4000) -> float:
    """Return how often greedy Q-learning presses ``buttons`` buttons in the order that was told, after ``steps`` presses of learning.

    The state is how many are left; each names its button. A wrong one ends the episode without reward, the last right one brings 1.
    """
    rng, values, done = np.random.default_rng(seed), np.zeros((buttons + 1, buttons)), 0
    lessons = None if teacher is None else teacher.open(arms(*range(1, buttons + 1)), Context(seed))
    episode = 0
    while done < steps:
        progress = done / steps
        arm = buttons - 1 if lessons is None else int(lessons.choose(asking(progress, 100_000 * seed + episode))[0])
        episode, left = episode + 1, arm + 1
        while left:
            explores = rng.random() < 0.02 or np.ptp(values[left]) == 0
            action = int(rng.integers(buttons)) if explores else int(np.argmax(values[left]))
            done += 1
            right = action == left - 1
            target = (1.0 if left == 1 else 0.9 * values[left - 1].max()) if right else 0.0
            values[left, action] += 0.3 * (target - values[left, action])
            if not right:
                break
            left -= 1
        if lessons is not None:
            lessons.update(np.array([arm]), [Outcome(arm, (float(left == 0),))])
    return float(all(int(np.argmax(values[left])) == left - 1 and values[left].max() > 0 for left in range(1, buttons + 1)))


@pytest.mark.parametrize("teacher", [SubInstructions(threshold=0.8), SubInstructions(grow="schedule")], ids=["success", "schedule"])
def test_six_buttons_are_learnt(teacher: SubInstructions) -> None:
    assert [pressed(teacher, seed) for seed in range(2)] == [1, 1]


def test_plain_learning_never_sees_a_reward_in_as_many_presses() -> None:
    assert [pressed(None, seed) for seed in range(2)] == [0, 0]
