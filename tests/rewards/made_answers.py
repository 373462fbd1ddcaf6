"""Answers made for tests of rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from outlay.context import Context
from outlay.prompts.base import Question
from outlay.rewards import Answer, Reward, Verdict

CONTEXT = Context(seed=0)


def answer(
    text: str = "",
    reference: str = "",
    *,
    tokens: int = 1,
    ended: bool = True,
    limit: int = 100,
    group: int = 0,
    kind: str = "",
    prompt: str = "",
    extra: Mapping[str, Any] | None = None,
) -> Answer:
    return Answer(Question(prompt, reference, kind=kind, extra=extra or {}), text, tokens, ended, limit, group)


def verdicts(reward: Reward, answers: Sequence[Answer]) -> list[Verdict]:
    found = reward.open(CONTEXT).judge(answers)
    low, high = reward.bounds
    assert len(found) == len(answers)
    assert all(verdict.outcome == "unjudged" or low <= verdict.value <= high for verdict in found), (reward.bounds, found)
    return found


def values(reward: Reward, answers: Sequence[Answer]) -> list[float]:
    return [verdict.value for verdict in verdicts(reward, answers)]


def outcomes(reward: Reward, answers: Sequence[Answer]) -> list[str]:
    return [verdict.outcome for verdict in verdicts(reward, answers)]
