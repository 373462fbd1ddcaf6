from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_answers import answer, outcomes, values

import outlay
from outlay.context import Context
from outlay.rewards import Answer, Judge, Verdict, VerifierAndModel, passed, unjudged


class Told:
    """A reward model's scores, written into the questions."""

    bounds = (-math.inf, math.inf)

    def open(self, context: Context) -> Judge:
        return self

    def judge(self, answers: list[Answer]) -> list[Verdict]:  # type: ignore[override]
        return [passed(a.question.extra["score"]) if "score" in a.question.extra else unjudged("no score") for a in answers]


def scored(text: str, score: float, reference: str = "1") -> Answer:
    return answer(text, reference, extra={"score": score})


def test_values_by_hand() -> None:
    reward = VerifierAndModel(Told())
    made = [scored("1", 0.0), scored("2", 0.0), scored("1", 2 * math.log(3)), scored("2", -2 * math.log(3))]
    assert values(reward, made) == pytest.approx([0.5, -0.5, 0.75, -0.75])
    assert outcomes(reward, made) == ["passed", "failed", "passed", "failed"]
    assert values(outlay.make("rewards/verifier_and_model", model=Told(), alpha=1), made)[2] == pytest.approx(0.9)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_right_outranks_wrong(first: float, second: float) -> None:
    right, wrong = values(VerifierAndModel(Told()), [scored("1", first), scored("2", second)])
    assert right >= 0 >= wrong


def test_what_either_cannot_judge_is_not_judged() -> None:
    made = [answer("1", "1"), scored("1", 0.0, ""), scored("1", 0.0)]
    assert outcomes(VerifierAndModel(Told()), made) == ["unjudged", "unjudged", "passed"]
    with pytest.raises(ValueError, match="alpha must be a finite number > 0, found 0"):
        VerifierAndModel(Told(), alpha=0)
