"""Exact answer: the text must be the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.rewards.base import Answer, Judge, Verdict, failed, passed, unjudged
from outlay.rewards.reading import given_answer


@dataclass(frozen=True)
class Exact:
    """1 when the text, stripped of blanks at its ends, equals the question's reference stripped likewise, else 0.

    A question without a reference cannot be judged.

    Args:
        end_required: an answer that did not end by itself is wrong, whatever it says.
        inside: name of the tag that holds the answer, such as ``answer`` for ``<answer>42</answer>``; the last one closed counts, and a text
            without it is wrong. Empty: the whole text is the answer.
    """

    title: ClassVar[str] = "Exact answer"
    paper: ClassVar[Paper | None] = None

    end_required: bool = True
    inside: str = ""

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and 1."""
        return 0.0, 1.0

    def open(self, context: Context) -> Judge:
        """Return the judge; nothing is needed."""
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict an answer."""
        return [self._one(answer) for answer in answers]

    def _one(self, answer: Answer) -> Verdict:
        reference = answer.question.reference.strip()
        if not reference:
            return unjudged("the question has no reference")
        return passed() if given_answer(answer, self.inside, self.end_required) == reference else failed()
