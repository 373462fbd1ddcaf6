"""Lengths: right answers are worth more when they are short. Lengths are in tokens, end mark included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.rewards.base import Answer, Judge, Reward, Verdict
from outlay.rewards.exact_answer import Exact
from outlay.rewards.shaping import Shaped, open_part
from outlay.schedules.base import require


@dataclass(frozen=True)
class Cosine:
    """A reward that follows half a cosine of the length: right answers lose by it, wrong ones are forgiven by it.

    With u = min(1, tokens / longest): end + (start - end) (1 + cos(pi u)) / 2, where (start, end) is (1, 0.1) for a right answer and
    (-1, -0.1) for a wrong one. The shape is that of arXiv 2502.03373. The authors' program counts characters and has 30000 for the longest;
    here lengths are tokens.

    Args:
        correct: says which answers are right.
        longest: length at which the end value is reached, in tokens, > 0; None for the answer's own limit.
        right: reward of a right answer of no length, and of the longest.
        wrong: the same of a wrong one.
    """

    title: ClassVar[str] = "Cosine of the length"
    paper: ClassVar[Paper | None] = Paper("2507.08267", "A Practical Two-Stage Recipe for Mathematical LLMs", 2025)

    correct: Reward = field(default_factory=Exact)
    longest: int | None = None
    right: tuple[float, float] = (1.0, 0.1)
    wrong: tuple[float, float] = (-1.0, -0.1)

    def __post_init__(self) -> None:
        require(self.longest is None or self.longest > 0, f"longest must be > 0 tokens, found {self.longest}")
        require(all(map(math.isfinite, self.right + self.wrong)), f"rewards must be finite, found {self.right} and {self.wrong}")

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest of the four end values."""
        return min(self.right + self.wrong), max(self.right + self.wrong)

    def open(self, context: Context) -> Judge:
        """Open ``correct``; raises what that raises."""
        return Shaped(open_part(self.correct, context), self._values)

    def _values(self, answers: Sequence[Answer], verdicts: Sequence[Verdict]) -> list[float]:
        return [self.value(answer, verdict.outcome == "passed") for answer, verdict in zip(answers, verdicts, strict=True)]

    def value(self, answer: Answer, right: bool) -> float:
        """Return the reward of one answer."""
        start, end = self.right if right else self.wrong
        progress = min(1.0, answer.tokens / (self.longest or answer.limit))
        return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class GroupLength:
    """Shorter than the other answers to the same question is better: between 0.5 for the shortest and -0.5 for the longest.

    With lambda = 0.5 - (tokens - min) / (max - min) over the group: lambda for a right answer, min(0, lambda) for a wrong one, so that being
    short never rewards what is wrong. 0 for all where all lengths are equal. Answers that could not be judged do not enter min and max.

    Args:
        correct: says which answers are right.
    """

    title: ClassVar[str] = "Length within the group"
    paper: ClassVar[Paper | None] = Paper("2501.12599", "Kimi k1.5: Scaling Reinforcement Learning with LLMs", 2025)

    correct: Reward = field(default_factory=Exact)

    @property
    def bounds(self) -> tuple[float, float]:
        """-0.5 and 0.5."""
        return -0.5, 0.5

    def open(self, context: Context) -> Judge:
        """Open ``correct``; raises what that raises."""
        return Shaped(open_part(self.correct, context), self._values)

    def _values(self, answers: Sequence[Answer], verdicts: Sequence[Verdict]) -> list[float]:
        rows = list(zip(answers, verdicts, strict=True))
        lengths: dict[int, list[int]] = {}
        for answer, verdict in rows:
            if verdict.outcome != "unjudged":
                lengths.setdefault(answer.group, []).append(answer.tokens)
        return [self._value(answer.tokens, verdict, lengths.get(answer.group, [])) for answer, verdict in rows]

    def _value(self, tokens: int, verdict: Verdict, lengths: Sequence[int]) -> float:
        if verdict.outcome == "unjudged" or min(lengths) == max(lengths):
            return 0.0
        share = 0.5 - (tokens - min(lengths)) / (max(lengths) - min(lengths))
        return share if verdict.outcome == "passed" else min(0.0, share)
