from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_answers import answer
from unruly import Odd, Unruly

from outlay.rewards import Answer, Verdict, failed, judge_guarded, passed, unjudged
from outlay.rewards.guarding import Unable, groups, narrowed


class Counting:
    """Raises on texts in ``bad``; passes others with the number of answers that were judged with them; remembers what it was given."""

    def __init__(self, bad: frozenset[str], together: int = 10**9) -> None:
        self.bad, self.together, self.calls = bad, together, []  # type: ignore[var-annotated]

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        self.calls.append([one.text for one in answers])
        if any(one.text in self.bad for one in answers) or len(answers) >= self.together:
            raise ValueError("bad")
        return [passed(float(sum(other.group == one.group for other in answers))) for one in answers]


def test_a_sound_judge_is_asked_once_and_believed() -> None:
    judge = Counting(frozenset())
    assert judge_guarded(judge, [answer("a", group=0), answer("b", group=0), answer("c", group=1)]) == [
        passed(2.0),
        passed(2.0),
        passed(1.0),
    ]
    assert judge.calls == [["a", "b", "c"]]
    assert judge_guarded(judge, []) == []


def test_only_the_culprit_loses_its_verdict_and_its_group_is_judged_again_together() -> None:
    judge = Counting(frozenset("b"))
    answers = [answer(text, group=i // 3) for i, text in enumerate("abcdef")]
    found = judge_guarded(judge, answers)
    assert found == [passed(2.0), unjudged("ValueError: bad"), passed(2.0), passed(3.0), passed(3.0), passed(3.0)]
    assert judge.calls == [list("abcdef"), list("abc"), ["a"], ["b"], ["c"], ["a", "c"], list("def")]


def test_a_group_without_a_single_culprit_is_unjudged() -> None:
    found = judge_guarded(Counting(frozenset(), together=2), [answer("a"), answer("b"), answer("c", group=1)])
    assert [verdict.outcome for verdict in found] == ["unjudged", "unjudged", "passed"]


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=12), st.integers(1, 4))
def test_verdicts_are_those_of_a_judge_that_never_saw_the_culprits(texts: list[tuple[int, bool]], size: int) -> None:
    answers = [answer("raise" if bad else str(n), group=i // size) for i, (n, bad) in enumerate(texts)]
    expected = iter(Unruly().judge([one for one in answers if one.text != "raise"]))
    for one, verdict in zip(answers, judge_guarded(Unruly(), answers), strict=True):
        assert verdict.outcome == "unjudged" if one.text == "raise" else verdict == next(expected)


@pytest.mark.parametrize("text", ["short", "none", "infinite", "high"])
def test_what_is_no_verdict_becomes_unjudged(text: str) -> None:
    found = judge_guarded(Odd(), [answer("fine"), answer(text), answer("fine", group=1)], (0.0, 1.0))
    assert [verdict.outcome for verdict in found] == ["passed", "unjudged", "passed"]
    assert found[1].value == 0.0 and found[1].why


def test_bounds_are_inclusive_and_infinite_by_default() -> None:
    class Fixed:
        def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
            return [failed(float(one.text)) for one in answers]

    answers = [answer("-1.001"), answer("-1"), answer("1"), answer("1.001")]
    assert [verdict.outcome for verdict in judge_guarded(Fixed(), answers, (-1.0, 1.0))] == ["unjudged", "failed", "failed", "unjudged"]
    assert [verdict.value for verdict in judge_guarded(Fixed(), answers)] == [-1.001, -1.0, 1.0, 1.001]


def test_unjudged_is_always_zero() -> None:
    class Wrong:
        def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
            return [Verdict("unjudged", 0.5, "cannot tell") for _ in answers]

    assert judge_guarded(Wrong(), [answer()], (-math.inf, math.inf)) == [unjudged("cannot tell")]


def test_a_stop_of_the_program_is_not_swallowed() -> None:
    class Interrupted:
        def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge_guarded(Interrupted(), [answer()])


def test_groups_are_runs_of_one_number() -> None:
    assert [[one.text for one in group] for group in groups([answer("a"), answer("b"), answer("c", group=4)])] == [["a", "b"], ["c"]]


def test_narrowing_a_single_answer_asks_once() -> None:
    calls = []

    def attempt(some: Sequence[Answer]) -> list[Verdict]:
        calls.append(len(some))
        raise Unable("never")

    assert narrowed(attempt, [answer()]) == [unjudged("never")]
    assert calls == [1]
