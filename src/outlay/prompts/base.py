"""The prompt seam: where questions come from, endlessly where that can be, with a cursor that tells which have been used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from outlay.arms import Arm
from outlay.context import Context


@dataclass(frozen=True)
class Question:
    """What is asked.

    Args:
        text: the prompt as the model is to see it.
        reference: a right answer, or what a judge compares with; empty where there is none.
        place: its number in its source's order, from 0; never given twice.
        kind: category for statistics, such as ``gcd/2``.
        extra: what else a judge needs, by name: plain values (tests of a program, tool calls, further references).
    """

    text: str
    reference: str = ""
    place: int = 0
    kind: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Questions(Protocol):
    """Prompts being read. ``draw`` does not move the cursor, ``advance`` does: a question counts as used once its answers were trained on."""

    def draw(self, count: int) -> list[Question]:
        """Return the next ``count`` questions; drawing twice gives the same."""
        ...

    def advance(self, count: int) -> None:
        """Move the cursor past ``count`` questions."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the cursor as plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved cursor."""
        ...


@runtime_checkable
class ArmedQuestions(Questions, Protocol):
    """Prompts that a teacher may choose among. Each arm has an order and a cursor of its own; a run reads by ``draw`` or by ``pick``, not by both."""

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What can be chosen among, at least one."""
        ...

    def pick(self, arms: Sequence[int]) -> list[Question]:
        """Return the next questions of these arms, in this order; an arm that is named twice gives its next two. Picking twice gives the same.

        No two of a run share a place. An arm with an end begins again with the same questions, at other places.
        """
        ...

    def use(self, arms: Sequence[int]) -> None:
        """Move the cursors past one question for every time an arm is named."""
        ...


@runtime_checkable
class PromptSource(Protocol):
    """Describes where questions come from."""

    def open(self, context: Context) -> Questions:
        """Return the questions, in an order that depends on ``context.seed`` alone."""
        ...
