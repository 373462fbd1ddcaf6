"""The reward seam: what an answer is worth. Three outcomes, never two: passed, failed, could not judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from outlay.context import Context
from outlay.schedules.base import require

if TYPE_CHECKING:  # prompts may be read from sources, which know rewards; and judges in processes of their own start without them
    from outlay.prompts.base import Question


@dataclass(frozen=True)
class Answer:
    """What is judged.

    Args:
        question: what was asked.
        text: the answer without its end mark.
        tokens: its length, end mark included.
        ended: whether it ended by itself (end mark or stop string), not at its limit.
        limit: how many tokens it was allowed.
        group: answers to the same question carry the same number.
    """

    question: Question
    text: str
    tokens: int
    ended: bool
    limit: int
    group: int


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one answer.

    Args:
        outcome: ``unjudged`` when the judge could not tell (it crashed, took too long, or has no grounds); such an answer teaches nothing.
        value: the reward; 0 and without meaning when unjudged.
        why: for people, mostly of what could not be judged.
    """

    outcome: Literal["passed", "failed", "unjudged"]
    value: float
    why: str = ""

    def __post_init__(self) -> None:
        require(math.isfinite(self.value), f"a reward must be finite, found {self.value}")


def passed(value: float = 1.0) -> Verdict:
    """Return the verdict of a right answer."""
    return Verdict("passed", value)


def failed(value: float = 0.0) -> Verdict:
    """Return the verdict of a wrong answer."""
    return Verdict("failed", value)


def unjudged(why: str) -> Verdict:
    """Return the verdict where there can be none."""
    return Verdict("unjudged", 0.0, why)


@runtime_checkable
class Judge(Protocol):
    """A reward opened for a run."""

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict an answer, in order. Answers of a group lie together, so that a reward may compare them."""
        ...


@runtime_checkable
class Reward(Protocol):
    """Describes what answers are worth. ``bounds`` promises lowest <= value <= highest for every verdict; infinite where it has none."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value."""
        ...

    def open(self, context: Context) -> Judge:
        """Return the judge.

        Raises:
            InputError: when something that it needs is missing or wrong.
            MissingExtra: when an optional package is needed.
        """
        ...
