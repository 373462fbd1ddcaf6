"""Pool: a fixed number of another source's questions, each or each kind of them an arm that a teacher may choose."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from outlay.arms import Arm
from outlay.catalog import Paper
from outlay.context import Context
from outlay.prompts.base import ArmedQuestions, PromptSource, Question
from outlay.prompts.file import Cycled
from outlay.rng import numpy_generator
from outlay.schedules.base import require


@dataclass(frozen=True)
class PoolPrompts:
    """The first ``size`` questions of a source, asked again and again: what a data set of prompts is.

    Without a teacher they are asked in a fresh random order every epoch.

    Args:
        of: where they come from.
        size: how many, > 0.
        by: what a teacher chooses among: single questions, or kinds of them, each in a random order of its own.
        difficulty: key of a number in each question's extra values that says how difficult it is; questions without one are as difficult as
            their source says of their kind.
    """

    title: ClassVar[str] = "A pool of questions"
    paper: ClassVar[Paper | None] = None

    of: PromptSource
    size: int
    by: Literal["question", "kind"] = "question"
    difficulty: str = "difficulty"

    def __post_init__(self) -> None:
        require(self.size > 0, f"size must be > 0, found {self.size}")
        require(self.by in ("question", "kind"), f"by must be question or kind, found {self.by!r}")

    def open(self, context: Context) -> _Pool:
        """Return the questions, in the order of the streams (seed, "prompts/pool", epoch)."""
        inner = self.of.open(context)
        asked = inner.draw(self.size)
        given = {arm.category: arm.difficulty for arm in inner.arms} if isinstance(inner, ArmedQuestions) else {}
        return _Pool(self, asked, [self._difficult(one, given) for one in asked], context.seed)

    def _difficult(self, question: Question, given: Mapping[str, float | None]) -> float | None:
        told = question.extra.get(self.difficulty)
        number = isinstance(told, int | float) and not isinstance(told, bool) and math.isfinite(told)
        return float(told) if number else given.get(question.kind)  # type: ignore[arg-type]


class _Pool(Cycled):
    def __init__(self, spec: PoolPrompts, asked: list[Question], difficult: list[float | None], seed: int) -> None:
        super().__init__(asked, seed, "prompts/pool")
        self._members = [[i] for i in range(len(asked))]
        if spec.by == "kind":
            kinds = list(dict.fromkeys(one.kind for one in asked))
            self._members = [[i for i, one in enumerate(asked) if one.kind == kind] for kind in kinds]
        self.arms = tuple(self._arm(spec, members, difficult) for members in self._members)
        self._next = [0] * len(self.arms)

    def _arm(self, spec: PoolPrompts, members: Sequence[int], difficult: Sequence[float | None]) -> Arm:
        first, told = self._asked[members[0]], [value for value in (difficult[i] for i in members) if value is not None]
        mean = sum(told) / len(told) if told else None
        if spec.by == "kind":
            return Arm(first.kind, first.kind, mean, len(members))
        return Arm(str(members[0]), first.kind, mean, 1, (), first.text)

    def pick(self, arms: Sequence[int]) -> list[Question]:
        """Return the next questions of these arms."""
        used, found = Counter[int](), []
        for i, arm in enumerate(arms):
            members = self._members[arm]
            epoch, at = divmod(self._next[arm] + used[arm], len(members))
            if len(members) > 1:
                at = int(numpy_generator(self._seed, f"prompts/pool/{arm}", epoch).permutation(len(members))[at])
            found.append(replace(self._asked[members[at]], place=self._place + i))
            used[arm] += 1
        return found

    def use(self, arms: Sequence[int]) -> None:
        """Move the cursors past these arms' questions."""
        for arm in arms:
            self._next[arm] += 1
        self._place += len(arms)

    def state_dict(self) -> dict[str, Any]:
        """Return the cursors."""
        return super().state_dict() | {"next": list(self._next)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to saved cursors.

        Raises:
            InputError: when there is another number of questions than there was.
        """
        super().load_state_dict(state)
        self._next = [int(index) for index in state["next"]]
