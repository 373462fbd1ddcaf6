"""Format: the answer keeps to a layout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.rewards.base import Answer, Judge, Verdict, failed, passed
from outlay.schedules.base import require


@dataclass(frozen=True)
class Format:
    """1 when the whole text keeps to a layout, else 0.

    The layout is ``tags`` in their order, such as ``<think>..</think> <answer>..</answer>``: nothing but blanks before, between and after
    them, and each mark exactly once in the text. Or it is a regular expression.

    Args:
        tags: names of the tags, at least one unless there is a ``pattern``.
        opened: the prompt ends with the first tag's opening mark already, so the text begins inside it.
        pattern: regular expression that the whole text must match instead of ``tags``; a dot also matches line ends.
    """

    title: ClassVar[str] = "Format"
    paper: ClassVar[Paper | None] = Paper(
        "2501.12948", "DeepSeek-R1: Incentivizing Reasoning Capability in LLMs via Reinforcement Learning", 2025
    )

    tags: tuple[str, ...] = ("think", "answer")
    opened: bool = False
    pattern: str = ""

    def __post_init__(self) -> None:
        require(bool(self.tags or self.pattern), "format needs tags or a pattern, found neither")
        require(len(set(self.tags)) == len(self.tags), f"each tag may be named once, found {', '.join(self.tags)}")
        require(all(re.fullmatch(r"[\w-]+", tag) for tag in self.tags), f"a tag is a word without brackets, found {self.tags}")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern must be a regular expression, found {self.pattern!r}: {error}") from None

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and 1."""
        return 0.0, 1.0

    def open(self, context: Context) -> Judge:
        """Return the judge; nothing is needed."""
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict an answer."""
        return [passed() if self._kept(answer.text) else failed() for answer in answers]

    def _kept(self, text: str) -> bool:
        if self.pattern:
            return re.fullmatch(self.pattern, text, re.DOTALL) is not None
        return in_layout(f"<{self.tags[0]}>{text}" if self.opened else text, self.tags)


@dataclass(frozen=True)
class BoxedInThought:
    r"""1 when ``\boxed{..}`` is opened before the thought ends, else 0, so that generation may stop at the end of the thought.

    Args:
        end: mark that ends the thought; a text without it is worth 0.
    """

    title: ClassVar[str] = "Answer boxed inside the thought"
    paper: ClassVar[Paper | None] = Paper("2507.08267", "A Practical Two-Stage Recipe for Mathematical LLMs", 2025)

    end: str = "</think>"

    def __post_init__(self) -> None:
        require(bool(self.end), "end must not be empty")

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and 1."""
        return 0.0, 1.0

    def open(self, context: Context) -> Judge:
        """Return the judge; nothing is needed."""
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict an answer."""
        return [passed() if self._kept(answer.text) else failed() for answer in answers]

    def _kept(self, text: str) -> bool:
        thought, end, _ = text.partition(self.end)
        return bool(end) and re.search(r"\\boxed\{.*\}", thought, re.DOTALL) is not None


def in_layout(text: str, tags: Sequence[str]) -> bool:
    """Say whether the text is ``tags`` in order with nothing but blanks around them, each mark standing exactly once."""
    marks = [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]
    if any(text.count(mark) != 1 for mark in marks):
        return False
    places = [text.index(mark) for mark in marks]
    ends = [place + len(mark) for place, mark in zip(places, marks, strict=True)]
    outside = [(0, places[0]), *zip(ends[1:-1:2], places[2::2], strict=True), (ends[-1], len(text))]
    return places == sorted(places) and not any(text[begin:end].strip() for begin, end in outside)
