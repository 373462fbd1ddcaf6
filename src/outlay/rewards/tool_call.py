"""Tool call: fine-grained correctness of calls in a fixed layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from outlay.catalog import Paper
from outlay.context import Context
from outlay.rewards.base import Answer, Judge, Verdict, failed, passed, unjudged
from outlay.rewards.calls import Call, call_of, calls_in_block, same_calls
from outlay.rewards.format_tags import in_layout
from outlay.schedules.base import require

if TYPE_CHECKING:
    from outlay.prompts.base import Question


@dataclass(frozen=True)
class ToolCall:
    """Format (0 or 1) plus correctness of the calls in [-scale, scale].

    Format: the text is ``<think>``, then ``<tool_call>`` where calls are wanted and ``<response>`` where the reference has one, each once, and
    nothing but blanks around them. Correctness: with S the points and Smax the most there are,

        2 scale S / Smax - scale,   S = names + sum of matches,   Smax = 1 + sum over wanted calls of (1 + number of its parameters)

    where ``names`` is the size of the intersection over that of the union of tool names as multisets, and each wanted call in turn takes the
    call of that name, not yet taken, with the best match: the same measure of parameter names, plus 1 for every value that is equal. A text
    without a ``<tool_call>`` block of one JSON object a line, each with ``name`` and ``parameters``, gets -scale. Where no call is wanted
    correctness is 0.

    Wanted calls are those of ``extra["calls"]``, mappings with ``name`` and ``parameters``, or of the block in the reference. The paper also
    lets the two parts change places during training: take the reward twice, once for each part, and turn their weights.

    Args:
        part: which parts are summed.
        grain: ``fine`` as above; ``strict``: parameter names and tool names match wholly or not at all; ``exact``: a wanted call earns one
            point if a call equals it, and Smax counts one for each; ``coarse``: all points if all calls are right, else none.
        scale: largest correctness, > 0.
    """

    title: ClassVar[str] = "Tool calls, fine-grained"
    paper: ClassVar[Paper | None] = Paper("2504.13958", "ToolRL: Reward is All Tool Learning Needs", 2025)

    part: Literal["both", "format", "calls"] = "both"
    grain: Literal["fine", "strict", "exact", "coarse"] = "fine"
    scale: float = 3.0

    def __post_init__(self) -> None:
        require(0 < self.scale < float("inf"), f"scale must be a finite number > 0, found {self.scale}")

    @property
    def bounds(self) -> tuple[float, float]:
        """What the parts can sum to."""
        calls = self.scale if self.part != "format" else 0.0
        return 0.0 - calls, calls + (self.part != "calls")

    def open(self, context: Context) -> Judge:
        """Return the judge; nothing is needed."""
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict an answer; it passes when all that its parts ask is right."""
        return [self._one(answer) for answer in answers]

    def _one(self, answer: Answer) -> Verdict:
        try:
            wanted = wanted_calls(answer.question)
        except ValueError as error:
            return unjudged(f"the question's own calls cannot be read: {error}")
        tags = ["think", *(["tool_call"] if wanted else []), *(["response"] if "<response>" in answer.question.reference else [])]
        kept = in_layout(answer.text, tags)
        value, right = self._correctness(answer.text, wanted)
        if self.part == "format":
            value, right = float(kept), kept
        elif self.part == "both":
            value, right = value + kept, right and kept
        return passed(value) if right else failed(value)

    def _correctness(self, text: str, wanted: Sequence[Call]) -> tuple[float, bool]:
        if not wanted:
            return 0.0, "<tool_call>" not in text
        try:
            given = calls_in_block(text)
        except ValueError:
            return -self.scale, False
        right = same_calls(wanted, given)
        share = 1.0 if right else 0.0 if self.grain == "coarse" else self._points(wanted, given)
        return 2 * self.scale * share - self.scale, right

    def _points(self, wanted: Sequence[Call], given: Sequence[Call]) -> float:
        """Return S / Smax."""
        points = self._overlap([call.name for call in wanted], [call.name for call in given])
        most = 1.0
        free = list(given)
        for call in wanted:
            most += 1.0 if self.grain == "exact" else 1.0 + len(call.parameters)
            rivals = [other for other in free if other.name == call.name]
            matches = [self._match(call, other) for other in rivals]
            if matches and max(matches) > 0:
                points += max(matches)
                taken = rivals[matches.index(max(matches))]
                free = [other for other in free if other is not taken]
        return points / most

    def _match(self, wanted: Call, given: Call) -> float:
        if self.grain == "exact":
            return float(wanted == given)
        equal = sum(name in given.parameters and given.parameters[name] == value for name, value in wanted.parameters.items())
        return self._overlap(list(wanted.parameters), list(given.parameters)) + equal

    def _overlap(self, first: Sequence[str], second: Sequence[str]) -> float:
        """Return |intersection| / |union| of multisets; 1 where both are empty."""
        ours, theirs = Counter(first), Counter(second)
        if ours == theirs:
            return 1.0
        return 0.0 if self.grain == "strict" else (ours & theirs).total() / (ours | theirs).total()


def wanted_calls(question: Question) -> list[Call]:
    """Return the calls that a question wants.

    Raises:
        ValueError: when they cannot be read.
    """
    if "calls" in question.extra:
        return [call_of(plain) for plain in question.extra["calls"]]
    return calls_in_block(question.reference) if "<tool_call>" in question.reference else []
