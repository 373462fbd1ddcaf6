"""Shaping: rewards made of another reward's verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


def needs_isolation(*parts: Reward | None) -> bool:
    """Say whether one of the rewards that another is made of has to be judged in a process of its own."""
    return any(bool(getattr(part, "isolate", False)) for part in parts)
