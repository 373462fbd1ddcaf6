"""Missing skills: the rule of difficulty by hand, practice in proportion to misses, and shares from evaluations."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from outlay.arms import Arm
from outlay.context import Context
from outlay.errors import InputError
from outlay.rng import numpy_generator
from outlay.teachers import MissingSkills
from outlay.teachers.base import Asking, Examined
from outlay.teachers.missing_skills import MissingSkillsLessons, is_difficult, practice
from outlay.testing import check_teacher

ASKING = Asking(10, 0.0, np.full(4, np.nan), np.zeros(4), numpy_generator(0, "test"))


def lessons(mastered: float = 0.0) -> MissingSkillsLessons:
    return MissingSkills(mastered).open([Arm(name) for name in "abcd"], Context(seed=0))


@pytest.mark.parametrize(
    ("scores", "hard"),
    [
        ([0.9, 0.95, 0.86], False), ([0.99, 0.99, 0.85], True), ([0.86], False), ([0.85], True),
        ([0.75, 0.8, 0.99], True), ([0.71, 0.99, 0.99, 0.99], False), ([0.7, 0.99, 0.99, 0.99], True), ([0.99, 0.99, 0.7, 0.99], True),
    ],
)  # fmt: skip
def test_difficult_by_last_step_mean_or_any_step(scores: list[float], hard: bool) -> None:
    assert is_difficult(scores) is hard


def test_thresholds_and_no_steps() -> None:
    assert is_difficult([0.5, 0.9], overall=0.6, step=0.5) and not is_difficult([0.5, 0.9], overall=0.6, step=0.4)
    with pytest.raises(ValueError, match="one step"):
        is_difficult([])


QUESTIONS = {"add": range(0, 20), "carry": range(20, 40), "sign": range(40, 43)}


def skill_of(number: int) -> str:
    return next(skill for skill, numbers in QUESTIONS.items() if number in numbers)


def test_practice_is_in_proportion_to_misses_and_fills_the_budget() -> None:
    missing = [{"add", "carry"}, {"carry"}, {"sign", "carry"}]
    found = practice(missing, QUESTIONS, 10_000, numpy_generator(0, "test"))
    assert found.shape == (10_000,)
    counts = Counter(skill_of(number) for number in found.tolist())
    assert counts["carry"] / 10_000 == pytest.approx(3 / 5, abs=0.01)
    assert counts["add"] / 10_000 == pytest.approx(1 / 5, abs=0.01)
    whole = practice(missing, QUESTIONS, 25, numpy_generator(0, "test"))
    assert Counter(skill_of(number) for number in whole.tolist()) == {"add": 5, "carry": 15, "sign": 5}
    assert len(practice(missing, QUESTIONS, 7, numpy_generator(0, "test"))) == 7
    again = practice(missing, QUESTIONS, 25, numpy_generator(0, "test"))
    assert again.tolist() == whole.tolist()
    assert len(set(practice([{"add"}], QUESTIONS, 5, numpy_generator(0, "test")).tolist())) == 5


def test_nothing_difficult_is_even_over_questions() -> None:
    found = practice([set(), set()], QUESTIONS, 8600, numpy_generator(0, "test"))
    assert np.bincount(found, minlength=43) == pytest.approx(np.full(43, 200), abs=70)


def test_a_skill_without_questions_is_refused() -> None:
    with pytest.raises(InputError, match="no question trains the skill 'cary'; did you mean 'carry'"):
        practice([{"cary"}], QUESTIONS, 5, numpy_generator(0, "test"))
    with pytest.raises(InputError, match="no question to practise"):
        practice([], {}, 5, numpy_generator(0, "test"))
    with pytest.raises(ValueError, match="count and each"):
        practice([], QUESTIONS, 0, numpy_generator(0, "test"))


def test_shares_are_failures_and_even_where_there_are_none() -> None:
    one = lessons()
    assert isinstance(one, Examined)
    assert one.shares(ASKING).tolist() == [0.25] * 4
    one.examined(np.array([0.1, 0.3, 0.0, 0.6]), 0.5)
    assert one.shares(ASKING) == pytest.approx([0.1, 0.3, 0.0, 0.6])
    one.examined(np.zeros(4), 0.6)
    assert one.shares(ASKING).tolist() == [0.25] * 4


def test_what_was_not_measured_keeps_its_value_or_counts_as_the_mean() -> None:
    one = lessons()
    one.examined(np.array([0.2, 0.4, np.nan, np.nan]), 0.5)
    assert one.shares(ASKING) == pytest.approx(np.array([0.2, 0.4, 0.3, 0.3]) / 1.2)
    one.examined(np.array([np.nan, np.nan, 0.8, np.nan]), 0.6)
    assert one.shares(ASKING) == pytest.approx(np.array([0.2, 0.4, 0.8, 1.4 / 3]) / (1.4 * 4 / 3))


def test_mastered_arms_are_left_out() -> None:
    one = lessons(mastered=0.2)
    one.examined(np.array([0.2, 0.3, 0.1, 0.9]), 0.5)
    assert one.shares(ASKING) == pytest.approx([0.0, 0.25, 0.0, 0.75])
    with pytest.raises(ValueError, match="mastered"):
        MissingSkills(-0.1)


def test_contract() -> None:
    check_teacher(MissingSkills())
    check_teacher(MissingSkills(mastered=0.3))
