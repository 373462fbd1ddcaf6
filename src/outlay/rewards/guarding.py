"""Guarding: a judge that fails on an answer costs that answer its verdict, and no other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from outlay.rewards.base import Answer, Judge, Verdict, unjudged


class Unable(Exception):
    """A judge gave no usable verdicts; the message says why."""


#: judges answers together, or raises ``Unable``
Attempt = Callable[[Sequence[Answer]], list[Verdict]]


def judge_guarded(judge: Judge, answers: Sequence[Answer], bounds: tuple[float, float] = (-math.inf, math.inf)) -> list[Verdict]:
    """Return a verdict an answer whatever the judge does, short of taking this process down; ``Isolated`` is for that.

    The answers are judged together. If the judge raises, returns another number of verdicts, or something that is no verdict, each group is
    judged on its own, and of the groups on which it still fails the answers are found that are to blame (see ``narrowed``). A value that is not
    finite or lies outside of ``bounds`` costs its answer alone the verdict. Unjudged verdicts have the value 0.

    Args:
        judge: an opened reward.
        answers: answers of a group lie together.
        bounds: what the reward promises.
    """

    def attempt(some: Sequence[Answer]) -> list[Verdict]:
        try:
            verdicts = list(judge.judge(some))
        except Exception as error:
            raise Unable(f"{type(error).__name__}: {error}"[:500]) from error
        if len(verdicts) != len(some):
            raise Unable(f"the judge gave {len(verdicts)} verdicts on {len(some)} answers")
        if not all(isinstance(verdict, Verdict) for verdict in verdicts):
            raise Unable("the judge gave something that is no verdict")
        return verdicts

    if not answers:
        return []
    try:
        verdicts = attempt(answers)
    except Unable:
        verdicts = [verdict for group in groups(answers) for verdict in narrowed(attempt, group)]
    return [_sound(verdict, bounds) for verdict in verdicts]


def groups(answers: Sequence[Answer]) -> list[list[Answer]]:
    """Split answers into their groups, in order."""
    return [list(group) for _, group in groupby(answers, key=lambda answer: answer.group)]


def narrowed(attempt: Attempt, group: Sequence[Answer]) -> list[Verdict]:
    """Judge one group, leaving unjudged only the answers that a judge cannot bear.

    1. The group is judged together.
    2. If that fails, each answer is judged alone: those on which this fails are to blame, and are unjudged.
    3. The others are judged together again, so that a reward that compares still sees all that can be compared.
    4. If that fails too, no single answer is to blame, and the whole group is unjudged.
    """
    try:
        return attempt(group)
    except Unable as error:
        if len(group) == 1:
            return [unjudged(str(error))]
        together = str(error)
    blamed: dict[int, str] = {}
    for i, answer in enumerate(group):
        try:
            attempt([answer])
        except Unable as error:
            blamed[i] = str(error)
    rest = iter(_again(attempt, [answer for i, answer in enumerate(group) if i not in blamed], together))
    return [unjudged(blamed[i]) if i in blamed else next(rest) for i in range(len(group))]


def _again(attempt: Attempt, others: list[Answer], together: str) -> list[Verdict]:
    try:
        return attempt(others) if others else []
    except Unable:
        return [unjudged(f"the judge fails on these answers together, and on none alone ({together})")] * len(others)


def _sound(verdict: Verdict, bounds: tuple[float, float]) -> Verdict:
    if verdict.outcome == "unjudged":
        return verdict if verdict.value == 0.0 else unjudged(verdict.why)
    if not math.isfinite(verdict.value):
        return unjudged(f"the judge gave the value {verdict.value}")
    if not bounds[0] <= verdict.value <= bounds[1]:
        return unjudged(f"the judge gave the value {verdict.value} outside of its bounds {bounds[0]} to {bounds[1]}")
    return verdict
