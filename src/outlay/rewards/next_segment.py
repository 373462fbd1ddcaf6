"""Next segment: the answer must be how the text goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from outlay.catalog import Paper
from outlay.context import Context
from outlay.rewards.base import Answer, Judge, Reward, Verdict, failed, passed, unjudged
from outlay.rewards.reading import answer_part
from outlay.rewards.shaping import open_part
from outlay.schedules.base import require


@dataclass(frozen=True)
class NextSegment:
    """1 when the predicted segment is the text's true continuation (the reference), else 0. Blanks count as one.

    The paper asks a generative judge whether both say the same, and takes beginnings of the continuation for right too. Here matches are
    literal, and where there is a ``semantic`` judge it is asked about the predictions that do not match. An empty prediction is wrong.

    Args:
        match: ``exact`` for the whole continuation; ``prefix`` for its first words too.
        words: fewest words of a prefix, >= 1; the whole continuation always counts.
        semantic: says by what passes which other predictions are right; None for none.
        inside: name of the tag that holds the prediction, such as ``answer`` after a thought; empty for the whole text.
    """

    title: ClassVar[str] = "Next segment of a text"
    paper: ClassVar[Paper | None] = Paper("2509.19249", "Reinforcement Learning on Pre-Training Data", 2025)

    match: Literal["exact", "prefix"] = "prefix"
    words: int = 1
    semantic: Reward | None = None
    inside: str = ""

    def __post_init__(self) -> None:
        require(self.words >= 1, f"words must be >= 1, found {self.words}")

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and 1."""
        return 0.0, 1.0

    def open(self, context: Context) -> Judge:
        """Open ``semantic``; raises what that raises."""
        return _Judge(self, None if self.semantic is None else open_part(self.semantic, context))

    def matches(self, predicted: str, truth: str) -> bool:
        """Say whether a prediction is literally right."""
        given, wanted = predicted.split(), truth.split()
        if self.match == "exact" or len(given) < self.words:
            return bool(given) and given == wanted
        return given == wanted[: len(given)]


@dataclass(frozen=True)
class _Judge:
    rule: NextSegment
    other: Judge | None

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        found = [self._literal(answer) for answer in answers]
        open_ones = [place for place, verdict in enumerate(found) if verdict.outcome == "failed" and self._part(answers[place])]
        if self.other is not None and open_ones:
            for place, verdict in zip(open_ones, self.other.judge([answers[place] for place in open_ones]), strict=True):
                found[place] = {"passed": passed(), "failed": failed()}.get(verdict.outcome, verdict)
        return found

    def _part(self, answer: Answer) -> str:
        return answer_part(answer.text, self.rule.inside) or ""

    def _literal(self, answer: Answer) -> Verdict:
        truth = answer.question.reference
        if not truth.strip():
            return unjudged("the question has no continuation to compare with")
        return passed() if self.rule.matches(self._part(answer), truth) else failed()
