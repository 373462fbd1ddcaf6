"""Limits: what becomes of answers that do not end in time. Lengths are in tokens, end mark included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.rewards.base import Answer, Judge, Reward, Verdict, failed, passed
from outlay.rewards.exact_answer import Exact
from outlay.rewards.reading import answer_part
from outlay.rewards.shaping import open_part
from outlay.schedules.base import require


@dataclass(frozen=True)
class SoftOverlong:
    """A penalty that grows linearly from 0 to -1 over the last ``buffer`` tokens before the limit.

    0 up to limit - buffer, then (limit - buffer - tokens) / buffer, and -1 past the limit. An answer passes when it is not punished.

    Args:
        buffer: tokens over which the penalty grows, > 0; a limit that is no longer is all buffer.
        longest: limit in tokens, > 0; None for the answer's own. The paper has 20480 with a buffer of 4096.
    """

    title: ClassVar[str] = "Soft overlong punishment"
    paper: ClassVar[Paper | None] = Paper("2503.14476", "DAPO: An Open-Source LLM Reinforcement Learning System at Scale", 2025)

    buffer: int = 4096
    longest: int | None = None

    def __post_init__(self) -> None:
        require(self.buffer > 0, f"buffer must be > 0 tokens, found {self.buffer}")
        require(self.longest is None or self.longest > 0, f"longest must be > 0 tokens, found {self.longest}")

    @property
    def bounds(self) -> tuple[float, float]:
        """-1 and 0."""
        return -1.0, 0.0

    def open(self, context: Context) -> Judge:
        """Return the judge; nothing is needed."""
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict an answer."""
        values = [self.value(answer.tokens, self.longest or answer.limit) for answer in answers]
        return [failed(value) if value < 0 else passed(0.0) for value in values]

    def value(self, tokens: int, limit: int) -> float:
        """Return the penalty of an answer of so many tokens."""
        buffer = min(self.buffer, limit)
        return max(-1.0, min(0.0, (limit - buffer - tokens) / buffer))


@dataclass(frozen=True)
class HardCut:
    """What an answer is worth if it ended within the limit, else 0: no other term for length is needed.

    Args:
        correct: what answers that are in time are worth.
        longest: limit in tokens, > 0; None for the answer's own, which an answer keeps when it ended by itself.
    """

    title: ClassVar[str] = "Hard cut at the limit"
    paper: ClassVar[Paper | None] = Paper("2510.15110", "DLER: Doing Length pEnalty Right", 2025)

    correct: Reward = field(default_factory=Exact)
    longest: int | None = None

    def __post_init__(self) -> None:
        require(self.longest is None or self.longest > 0, f"longest must be > 0 tokens, found {self.longest}")

    @property
    def bounds(self) -> tuple[float, float]:
        """Those of ``correct``, with 0."""
        low, high = self.correct.bounds
        return min(low, 0.0), max(high, 0.0)

    def open(self, context: Context) -> Judge:
        """Open ``correct``; raises what that raises."""
        return _Ended(open_part(self.correct, context), self.longest, failed())


@dataclass(frozen=True)
class MissingEnd:
    """A penalty for every answer that did not end by itself; it stands in the place of whatever the answer would have been worth.

    Ended: scale times what ``correct`` gives, or 0 without one. Not ended: ``penalty``. An answer without ``correct`` passes when it ended.

    Args:
        penalty: value of an answer without its end, a finite number.
        correct: what ended answers are worth; None where this is one reward among several, which are then added.
        scale: times ``correct``, finite; the paper's verified answers are worth 10.
    """

    title: ClassVar[str] = "Penalty for a missing end"
    paper: ClassVar[Paper | None] = Paper("2411.15124", "Tulu 3: Pushing Frontiers in Open Language Model Post-Training", 2024)

    penalty: float = -10.0
    correct: Reward | None = None
    scale: float = 10.0

    def __post_init__(self) -> None:
        require(math.isfinite(self.penalty), f"penalty must be finite, found {self.penalty}")
        require(math.isfinite(self.scale), f"scale must be finite, found {self.scale}")

    @property
    def bounds(self) -> tuple[float, float]:
        """The penalty, and what ended answers can be worth."""
        ends = (0.0,) if self.correct is None else tuple(self.scale * bound if self.scale else 0.0 for bound in self.correct.bounds)
        return min(*ends, self.penalty), max(*ends, self.penalty)

    def open(self, context: Context) -> Judge:
        """Open ``correct``; raises what that raises."""
        inner = _Worthless() if self.correct is None else open_part(self.correct, context)
        return _Ended(inner, None, failed(self.penalty), self.scale)


@dataclass(frozen=True)
class _Ended:
    """Asks ``inner`` about the answers that are in time; the others get ``late``."""

    inner: Judge
    longest: int | None
    late: Verdict
    scale: float = 1.0

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        fine = [place for place, answer in enumerate(answers) if answer.ended and (self.longest is None or answer.tokens <= self.longest)]
        told = self.inner.judge([answers[place] for place in fine]) if fine else []
        kept = dict(zip(fine, map(self._scaled, told), strict=True))
        return [kept.get(place, self.late) for place in range(len(answers))]

    def _scaled(self, verdict: Verdict) -> Verdict:
        return Verdict(verdict.outcome, self.scale * verdict.value, verdict.why)


class _Worthless:
    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        return [passed(0.0) for _ in answers]


@dataclass(frozen=True)
class Words:
    """Longer is better up to a number of words: min(1, words / enough). An answer passes when it has them all.

    The paper counts the thought's words and found that this hurts small models.

    Args:
        enough: words that are worth 1, > 0.
        inside: name of the tag whose words count, such as ``think``; a text without it has none. Empty: the whole text.
    """

    title: ClassVar[str] = "Words"
    paper: ClassVar[Paper | None] = Paper("2504.13958", "ToolRL: Reward is All Tool Learning Needs", 2025)

    enough: int = 512
    inside: str = ""

    def __post_init__(self) -> None:
        require(self.enough > 0, f"enough must be > 0 words, found {self.enough}")

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and 1."""
        return 0.0, 1.0

    def open(self, context: Context) -> Judge:
        """Return the judge; nothing is needed."""
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict an answer."""
        values = [min(1.0, len((answer_part(answer.text, self.inside) or "").split()) / self.enough) for answer in answers]
        return [passed(value) if value == 1.0 else failed(value) for value in values]
