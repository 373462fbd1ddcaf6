"""Shaping: rewards made of another reward's verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from outlay.context import Context
from outlay.rewards.base import Answer, Judge, Reward, Verdict

#: gets answers and what another judge said of them; returns a value an answer (that of an unjudged one is not looked at)
Values = Callable[[Sequence[Answer], Sequence[Verdict]], Sequence[float]]


@dataclass(frozen=True)
class Shaped:
    """A judge that keeps another's outcomes and gives them other values. What the other could not judge stays unjudged.

    Args:
        inner: says which answers pass.
        values: what they are worth.
    """

    inner: Judge
    values: Values

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict an answer."""
        verdicts = self.inner.judge(answers)
        values = self.values(answers, verdicts)
        return [
            verdict if verdict.outcome == "unjudged" else Verdict(verdict.outcome, value, verdict.why)
            for verdict, value in zip(verdicts, values, strict=True)
        ]


def open_part(reward: Reward, context: Context) -> Judge:
    """Open a reward that another is made of; one that has to be judged in a process of its own gets it, and the other stays where it is."""
    from outlay.rewards.isolated import open_judge

    return open_judge(reward, context)
