"""Tool use: a penalty for each way in which a call goes wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.rewards.base import Answer, Judge, Verdict, failed, passed, unjudged
from outlay.rewards.calls import Call, call_of, written_call


@dataclass(frozen=True)
class ToolUse:
    """A reward for one call of a tool, by its worst error.

    ======================================================================  =====
    cannot be read as a call, or calls a tool that there is not              -2
    another tool than is wanted                                              -1.5
    parameters hallucinated, redundant and missing                           -1.8
    parameters hallucinated, and redundant or missing                        -1.3
    parameters redundant and missing                                         -1
    parameters hallucinated                                                  -0.8
    parameters redundant or missing                                          -0.5
    the right parameters with other values                                   -0.25
    as wanted                                                                 1
    ======================================================================  =====

    A parameter is hallucinated when the tool has none of that name, redundant when it has but none is wanted, missing when it is wanted but
    not given. Answers read ``name(key='value')`` (the first such call in the text) or are one JSON object with ``name`` and ``parameters``.

    A question says in ``extra["tools"]`` the names of parameters by tool, and in ``extra["call"]``, a mapping with ``name`` and
    ``parameters``, or else in its reference, written like an answer, what is wanted.
    """

    title: ClassVar[str] = "Tool use by worst error"
    paper: ClassVar[Paper | None] = Paper("2412.15495", "TL-Training: A Task-Feature-Based Framework for Training LLMs in Tool Use", 2024)

    @property
    def bounds(self) -> tuple[float, float]:
        """-2 and 1."""
        return -2.0, 1.0

    def open(self, context: Context) -> Judge:
        """Return the judge; nothing is needed."""
        return self

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """Return a verdict an answer."""
        return [self._one(answer) for answer in answers]

    def _one(self, answer: Answer) -> Verdict:
        extra = answer.question.extra
        tools: Mapping[str, Sequence[str]] = extra.get("tools", {})
        try:
            wanted = call_of(extra["call"]) if "call" in extra else written_call(answer.question.reference)
        except ValueError as error:
            return unjudged(f"the question's own call cannot be read: {error}")
        if wanted.name not in tools:
            return unjudged(f"the wanted tool {wanted.name!r} is not among the question's tools: {', '.join(tools) or 'none'}")
        try:
            given = written_call(answer.text)
        except ValueError:
            return failed(-2.0)
        value = call_value(wanted, given, tools)
        return passed(value) if value == 1.0 else failed(value)


def call_value(wanted: Call, given: Call, tools: Mapping[str, Sequence[str]]) -> float:
    """Return the reward of a call that could be read."""
    if given.name not in tools:
        return -2.0
    if given.name != wanted.name:
        return -1.5
    names, known = set(given.parameters), set(tools[given.name])
    hallucinated = bool(names - known)
    redundant = bool((names & known) - set(wanted.parameters))
    missing = bool(set(wanted.parameters) - names)
    if hallucinated:
        return (-0.8, -1.3, -1.8)[redundant + missing]
    if redundant or missing:
        return (-0.5, -1.0)[redundant and missing]
    return 1.0 if given == wanted else -0.25
