"""Every rule of the contract of rewards refuses a reward that breaks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from made_answers import answer

from outlay.context import Context
from outlay.rewards import Answer, Exact, Verdict, failed, passed, unjudged
from outlay.testing import check_reward

ANSWERS = [answer(text, "1", group=group) for group, texts in enumerate(("12", "1", "21x")) for text in texts]

JudgeAll = Callable[["Made", Sequence[Answer]], list[Verdict]]


def share(judge: Made, answers: Sequence[Answer]) -> list[Verdict]:
    """The answer's share of its group's length, unjudged where it is no number."""
    totals = {a.group: sum(len(b.text) for b in answers if b.group == a.group) for a in answers}
    return [passed(len(a.text) / totals[a.group]) if a.text.isdigit() else unjudged("no number") for a in answers]


@dataclass
class Made:
    rule: JudgeAll
    bounds: tuple[float, float] = (0.0, 1.0)
    calls: int = 0

    def open(self, context: Context) -> Made:
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        self.calls += 1
        return self.rule(self, answers)


def drawing(judge: Made, answers: Sequence[Answer]) -> list[Verdict]:
    torch.rand(1)
    return share(judge, answers)


@pytest.mark.parametrize("reward", [Exact(), Made(share)])
def test_sound_rewards_pass(reward: Any) -> None:
    check_reward(reward, ANSWERS)


@pytest.mark.parametrize(
    ("reward", "rule"),
    [
        (object(), "a reward has bounds and open"),
        (Made(share, (1.0, 0.0)), "bounds are the lowest and the highest value"),
        (Made(lambda judge, answers: share(judge, answers)[:5]), "a verdict an answer"),
        (Made(lambda judge, answers: share(judge, answers) or [failed()]), "no answers get no verdicts"),
        (Made(lambda judge, answers: [1.0 for _ in answers]), "verdicts are Verdict objects"),  # type: ignore[misc]
        (Made(lambda judge, answers: [Verdict("maybe", 0.0) for _ in answers]), "has passed, failed, or could not"),  # type: ignore[arg-type]
        (Made(lambda judge, answers: [Verdict("unjudged", 0.5, "why") for _ in answers]), "what could not be judged has the value 0"),
        (Made(lambda judge, answers: [unjudged("") for _ in answers]), "what could not be judged has a reason"),
        (Made(lambda judge, answers: [passed(2.0) for _ in answers]), "values keep the bounds"),
        (Made(lambda judge, answers: [passed(judge.calls / 100) for _ in answers]), "the same answers get the same verdicts"),
        (Made(lambda judge, answers: [passed(len(answers) / 10) for _ in answers]), "without regard to other groups"),
        (Made(lambda judge, answers: [passed((a.group < answers[0].group) / 2) for a in answers]), "groups in another order"),
        (Made(lambda judge, answers: [failed(float(a.group == answers[-1].group)) for a in answers]), "without regard to other groups"),
        (Made(drawing), "never from a global generator"),
    ],
)
def test_broken_rewards_are_refused(reward: Any, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_reward(reward, ANSWERS)


def test_another_judge_must_agree() -> None:
    class Opened(Made):
        def open(self, context: Context) -> Made:
            self.calls += 1
            value = self.calls / 10
            return Made(lambda judge, answers: [passed(value) for _ in answers])

    with pytest.raises(AssertionError, match="another judge gives the same verdicts"):
        check_reward(Opened(share), ANSWERS)


def test_answers_must_lie_by_group() -> None:
    for answers in ([answer()], [answer(group=0), answer(group=1), answer(group=0)]):
        with pytest.raises(AssertionError, match="answers of two groups lie together"):
            check_reward(Exact(), answers)
