from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_answers import answer, outcomes, values, verdicts

import outlay
from outlay.rewards import Cosine, GroupLength, unjudged


def right(tokens: int, **also: int) -> object:
    return answer("1", "1", tokens=tokens, **also)  # type: ignore[arg-type]


def wrong(tokens: int, **also: int) -> object:
    return answer("2", "1", tokens=tokens, **also)  # type: ignore[arg-type]


def test_cosine_by_hand() -> None:
    # at a third of the way 1 + cos(60 degrees) = 1.5, half way 1, at the end 0
    made = [right(0), right(20), right(30), right(60), right(90), wrong(0), wrong(20), wrong(60)]
    expected = [1.0, 0.1 + 0.45 * 1.5, 0.1 + 0.45, 0.1, 0.1, -1.0, -0.1 - 0.45 * 1.5, -0.1]
    assert values(Cosine(longest=60), made) == pytest.approx(expected, abs=1e-12)  # type: ignore[arg-type]
    assert outcomes(Cosine(longest=60), made) == ["passed"] * 5 + ["failed"] * 3  # type: ignore[arg-type]


def test_what_is_unjudged_stays_so_and_is_worth_nothing() -> None:
    for reward in (Cosine(), GroupLength()):
        found = verdicts(reward, [answer("1", "", tokens=5), right(9), wrong(7)])  # type: ignore[list-item]
        assert found[0] == unjudged("the question has no reference")


def test_cosine_takes_the_answers_own_limit_and_other_ends() -> None:
    reward = outlay.make("rewards/cosine", right=[2, 1], wrong=[-10, 0])
    made = [right(10, limit=20), right(10, limit=10), wrong(20, limit=40), wrong(40, limit=40)]
    assert values(reward, made) == pytest.approx([1.5, 1.0, -5.0, 0.0], abs=1e-12)  # type: ignore[arg-type]
    assert reward.bounds == (-10.0, 2.0)


@given(st.integers(0, 200), st.integers(0, 200))
def test_cosine_falls_for_right_answers_and_rises_for_wrong_ones(first: int, second: int) -> None:
    low, high = sorted((first, second))
    a, b = values(Cosine(), [right(low), right(high)])  # type: ignore[list-item]
    assert a >= b >= 0.1 - 1e-12
    a, b = values(Cosine(), [wrong(low), wrong(high)])  # type: ignore[list-item]
    assert a <= b <= -0.1 + 1e-12


def test_length_within_the_group_by_hand() -> None:
    made = [right(10), right(20), right(30), right(50), wrong(10), wrong(40), wrong(50)]
    # lambda = .5 - (tokens - 10) / 40
    assert values(GroupLength(), made) == pytest.approx([0.5, 0.25, 0.0, -0.5, 0.0, -0.25, -0.5])  # type: ignore[arg-type]


def test_groups_are_apart_and_equal_lengths_are_worth_nothing() -> None:
    made = [right(10, group=1), right(20, group=1), right(15, group=2), wrong(15, group=2), right(7, group=3)]
    assert values(GroupLength(), made) == [0.5, -0.5, 0.0, 0.0, 0.0]  # type: ignore[arg-type]


def test_unjudged_answers_do_not_enter_the_groups_lengths() -> None:
    made = [right(10), right(20), answer("1", "", tokens=1000)]
    assert values(GroupLength(), made)[:2] == [0.5, -0.5]  # type: ignore[arg-type]
    assert outcomes(GroupLength(), made) == ["passed", "passed", "unjudged"]  # type: ignore[arg-type]
    assert outcomes(Cosine(), made) == ["passed", "passed", "unjudged"]  # type: ignore[arg-type]
    assert outcomes(GroupLength(), [answer("1", "")]) == ["unjudged"]


def test_bad_lengths_and_ends_are_refused() -> None:
    with pytest.raises(ValueError, match="longest must be > 0 tokens, found 0"):
        Cosine(longest=0)
    with pytest.raises(ValueError, match="rewards must be finite"):
        Cosine(right=(math.inf, 0.0))
