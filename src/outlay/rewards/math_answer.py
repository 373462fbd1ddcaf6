r"""Math: the answer must be mathematically equal to the reference."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import MissingExtra
from outlay.rewards.base import Answer, Judge, Verdict, failed, passed, unjudged
from outlay.rewards.reading import given_answer

#: three letters in a row that are no command: words, which would be read as a product of letters
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}")


@dataclass(frozen=True)
class Math:
    r"""1 when math-verify finds the text's answer equal to the reference, else 0: ``\frac{1}{2}``, ``1/2`` and ``0.5`` are one number.

    The answer is the content of the last ``\boxed{..}``; without one, what is said to be the answer, or the last expression. A reference that
    cannot be parsed makes no verdict; an answer that cannot be is wrong. Where sympy takes for ever, whoever keeps judges apart ends it.

    Args:
        boxed: an answer outside ``\boxed{..}`` is wrong.
        end_required: an answer that did not end by itself is wrong, whatever it says.
        inside: name of the tag in which to look for the answer; empty for the whole text.
    """

    title: ClassVar[str] = "Mathematical equality"
    paper: ClassVar[Paper | None] = None
    isolate: ClassVar[bool] = True

    boxed: bool = False
    end_required: bool = True
    inside: str = ""

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and 1."""
        return 0.0, 1.0

    def open(self, context: Context) -> Judge:
        """Return the judge.

        Raises:
            MissingExtra: without math-verify.
        """
        try:
            import math_verify  # noqa: F401
        except ImportError:
            raise MissingExtra("math-verify", "rl") from None
        for name in ("math_verify.parser", "math_verify.grader"):
            logging.getLogger(name).setLevel(logging.ERROR)  # it warns once that nobody limits its time; somebody does
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict an answer."""
        return [self._one(answer) for answer in answers]

    def _one(self, answer: Answer) -> Verdict:
        from math_verify import verify

        wanted = parsed_reference(answer.question.reference)
        if not wanted:
            return unjudged(f"the reference {answer.question.reference!r} cannot be parsed as mathematics")
        text = given_answer(answer, self.inside, self.end_required)
        if text is None or (self.boxed and r"\boxed{" not in text):
            return failed()
        # its own time limits need the main thread's signals
        return passed() if verify(wanted, _parsed_answer(text), timeout_seconds=None) else failed()


def parsed_reference(text: str) -> list[Any]:
    """Return what math-verify reads in a reference; empty where that is nothing. Mathematics needs no dollar signs around it."""
    from math_verify import parse

    found: list[Any] = parse(text, parsing_timeout=None)
    if not found and text.strip() and not _WORD.search(text):
        found = parse(f"${text}$", parsing_timeout=None)
    return found


def _parsed_answer(text: str) -> list[Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    last = text.rfind(r"\boxed{")
    # several boxes in a row would be read as a set
    shown = text if last < 0 else text[last:]
    found: list[Any] = parse(shown, [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()], parsing_timeout=None)
    return found
