from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_answers import answer, outcomes, values

from outlay.context import Context
from outlay.rewards import Answer, ClippedDelta, Judge, Verdict, passed, unjudged

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


class LastWord:
    """The score of a beginning stands at its end; what is no number cannot be scored."""

    bounds = (0.0, 1.0)

    def __init__(self) -> None:
        self.seen: list[Answer] = []

    def open(self, context: Context) -> Judge:
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        self.seen += answers
        words = [one.text.split()[-1] for one in answers]
        return [passed(float(word)) if word[0].isdigit() else unjudged(word) for word in words]


def rule(**fields: object) -> ClippedDelta:
    return ClippedDelta(LastWord(), **fields)  # type: ignore[arg-type]


def test_both_by_hand() -> None:
    # clipped at .5: -.1, 0, -.3; differences: -.1, .3, and -.3 itself
    assert rule().shaped([0.4, 0.9, 0.2]) == pytest.approx([-0.1, 0.3, -0.3])
    assert rule(last="drop").shaped([0.4, 0.9, 0.2]) == pytest.approx([-0.1, 0.3, 0.0])
    assert rule(delta=False, eta=0.3).shaped([0.4, 0.9, 0.2]) == pytest.approx([0, 0, -0.1])
    assert rule(clip=False).shaped([0.4, 0.9, 0.2]) == pytest.approx([-0.5, 0.7, 0.2])
    assert rule(clip=False, delta=False).shaped([0.4, 0.9]) == [0.4, 0.9]
    assert rule(clip=False).shaped([0.4]) == [0.4] and rule().shaped([]) == []


@given(SCORES)
def test_differences_from_a_step_on_sum_to_its_score(scores: list[float]) -> None:
    found = rule(clip=False).shaped(scores)
    assert [sum(found[place:]) for place in range(len(scores))] == pytest.approx(scores)


@given(SCORES, st.floats(0.5, 1))
def test_a_good_step_more_gains_nothing_when_clipped(scores: list[float], extra: float) -> None:
    kept = rule(delta=False).shaped(scores)
    assert all(value <= 0 for value in kept)
    assert sum(rule(delta=False).shaped([*scores, extra])) == sum(kept)


@given(SCORES, st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["keep", "drop"]))
def test_the_sum_keeps_its_bounds(scores: list[float], success: bool, clip: bool, delta: bool, last: str) -> None:
    reward = rule(clip=clip, delta=delta, last=last, alpha=0.7)
    text = "\n\n".join(f"{score:.17f}" for score in scores)
    low, high = reward.bounds
    total = math.fsum(reward.step_rewards(scores, success))
    assert low - 1e-12 <= total <= high + 1e-12
    assert values(reward, [answer(text, text if success else "x")]) == pytest.approx([total], abs=1e-12)


def test_bounds_are_reached() -> None:
    for fields, bounds, lowest, highest in [
        ({"eta": 0.4}, (-0.4, 1.0), [0.0], [1.0]),
        ({"eta": 0.4, "last": "drop"}, (-0.4, 1.4), [0.0, 1.0], [1.0, 0.0]),
        ({"clip": False}, (0.0, 2.0), [0.0], [1.0]),
        ({"clip": False, "last": "drop"}, (-1.0, 2.0), [0.0, 1.0], [1.0, 0.0]),
    ]:
        reward = rule(**fields)
        assert reward.bounds == pytest.approx(bounds)
        assert sum(reward.step_rewards(lowest, False)) == pytest.approx(bounds[0])
        assert sum(reward.step_rewards(highest, True)) == pytest.approx(bounds[1])
    assert rule(delta=False, clip=False).bounds == (0.0, math.inf) and rule(delta=False).bounds == (-math.inf, 1.0)


def test_success_is_added_to_the_last_step() -> None:
    assert rule(alpha=2).step_rewards([0.4, 0.9, 0.2], True) == pytest.approx([-0.2, 0.6, 0.4])
    assert rule().step_rewards([], True) == [1.0]


def test_steps_are_the_parts_of_the_text() -> None:
    reward = rule(delta=False, alpha=2)
    text = "a 0.4\n\n\n\nb 0.9\n\nc 0.2"
    made = [answer(text, text, tokens=220), answer(text, "x", ended=False), answer("", "x")]
    # parts with nothing in them are left out: -.1, 0, -.3
    assert values(reward, made) == pytest.approx([1 - 0.8, -0.8, 0.0])
    assert outcomes(reward, made) == ["passed", "failed", "failed"]
    seen = reward.score.seen[:3]  # type: ignore[attr-defined]
    assert [one.text for one in seen] == ["a 0.4", "a 0.4\n\n\n\nb 0.9", text]
    assert [one.ended for one in seen] == [False, False, True]
    assert [one.tokens for one in seen] == [52, 147, 220]  # 5, 14 and 21 characters of 21


def test_what_cannot_be_scored_or_verified_is_not_judged() -> None:
    assert outcomes(rule(), [answer("x", "x"), answer("0.5", ""), answer("0.5", "0.5")]) == ["unjudged", "unjudged", "passed"]


def test_bad_fields_and_scores_without_bounds_are_refused() -> None:
    for fields, message in [
        ({"eta": 2}, r"eta must lie in \[0, 1\], found 2"),
        ({"alpha": -1}, "alpha must be a finite number >= 0, found -1"),
        ({"split": ""}, "split must not be empty"),
    ]:
        with pytest.raises(ValueError, match=message):
            rule(**fields)
    wide = LastWord()
    wide.bounds = (-math.inf, 1.0)
    with pytest.raises(ValueError, match="the scores of steps must lie in"):
        ClippedDelta(wide)
    assert rule(alpha=0, delta=False).bounds == (0.0, 1.0)
