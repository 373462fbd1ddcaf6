"""Standardised: a reward measured against the other answers to the same question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.rewards.base import Answer, Judge, Reward, Verdict
from outlay.rewards.shaping import Shaped, open_part


@dataclass(frozen=True)
class Standardised:
    """(value - mean) / standard deviation over the group's judged answers; 0 for all where they are worth the same.

    Makes rewards of different scales comparable before they are added: the mean of a reference metric and a reward model's score, both
    standardised, is one of the paper's rewards. The deviation divides by the number of answers.

    Args:
        reward: what is standardised.
    """

    title: ClassVar[str] = "Standardised within the group"
    paper: ClassVar[Paper | None] = Paper("2505.11080", "BLEUBERI: BLEU is a surprisingly effective reward for instruction following", 2025)

    reward: Reward

    @property
    def bounds(self) -> tuple[float, float]:
        """None: sqrt(n - 1) in a group of n."""
        return -math.inf, math.inf

    def open(self, context: Context) -> Judge:
        """Open ``reward``; raises what that raises."""
        return Shaped(open_part(self.reward, context), _scores)


def _scores(answers: Sequence[Answer], verdicts: Sequence[Verdict]) -> list[float]:
    groups: dict[int, list[float]] = {}
    for answer, verdict in zip(answers, verdicts, strict=True):
        if verdict.outcome != "unjudged":
            groups.setdefault(answer.group, []).append(verdict.value)
    return [_score(verdict.value, groups.get(answer.group, [verdict.value])) for answer, verdict in zip(answers, verdicts, strict=True)]


def _score(value: float, group: Sequence[float]) -> float:
    mean = math.fsum(group) / len(group)
    deviation = math.sqrt(math.fsum((other - mean) ** 2 for other in group) / len(group))
    # a group of equal values may have a deviation of rounding errors
    return (value - mean) / deviation if max(group) > min(group) and deviation > 0 else 0.0
