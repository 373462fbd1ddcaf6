from __future__ import annotations

from made_answers import CONTEXT, answer, outcomes

from outlay.rewards import GroupLength, HardCut, Math
from outlay.rewards.isolated import IsolatedJudge
from outlay.rewards.shaping import Shaped, open_part


def test_only_the_part_that_needs_it_gets_a_process_of_its_own() -> None:
    judge = GroupLength(correct=Math()).open(CONTEXT)
    assert isinstance(judge, Shaped) and isinstance(judge.inner, IsolatedJudge)
    made = [answer(r"\boxed{1/2}", "0.5", tokens=3), answer(r"\boxed{2}", "0.5", tokens=9)]
    assert [(verdict.outcome, verdict.value) for verdict in judge.judge(made)] == [("passed", 0.5), ("failed", -0.5)]
    judge.inner.close()


def test_what_needs_none_is_judged_here() -> None:
    inner = HardCut()
    assert not isinstance(open_part(inner, CONTEXT), IsolatedJudge)
    assert outcomes(inner, [answer("1", "1")]) == ["passed"]
