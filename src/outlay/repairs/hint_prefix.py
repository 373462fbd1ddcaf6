"""Hint prefix: a failed group is generated again with the beginning of the solution in its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.repairs.base import Group, Workshop
from outlay.repairs.failed import OfFailed, check_template, hinted, matched, prefix
from outlay.schedules.base import require

SENTENCE = "The following text is the beginning part of the answer, which you can refer to for solving the problem:"


@dataclass(frozen=True)
class HintPrefix:
    """Generate the whole group again from question + sentence + the first round(w length) characters of the reference, for w = 1/4, 1/2, 3/4 in turn,
    each only while every answer still fails.

    What is trained on is the last group, under the prompt that it was generated from, thus on policy; all groups are charged. A question
    without a reference stays as it is. A reference that is a bare answer rather than a solution is given away by its prefix.

    Args:
        shares: of the reference that are shown, rising, each in (0, 1].
        exempt: share of the stage's budget before which nobody is helped, in [0, 1].
        template: the hinted prompt, with ``{question}`` and ``{hint}``.
    """

    title: ClassVar[str] = "Group again under a prefix of the solution (GHPO)"
    paper: ClassVar[Paper | None] = Paper("2507.10628", "GHPO: Adaptive Guidance for Stable and Efficient LLM Reinforcement Learning", 2025)

    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    exempt: float = 0.0
    template: str = "{question}\n" + SENTENCE + "\n{hint}\n"

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in zip((0.0, *self.shares), self.shares, strict=False))
        require(bool(self.shares) and rising and self.shares[-1] <= 1, f"shares must rise within (0, 1], found {self.shares}")
        require(0 <= self.exempt <= 1, f"exempt must lie in [0, 1], found {self.exempt}")
        check_template(self.template)

    def open(self, context: Context) -> Hinting:
        """Return the repair."""
        return Hinting(self)


@dataclass
class Hinting(OfFailed):
    """Remember nothing."""

    spec: HintPrefix

    def mended(self, failed: Sequence[Group], shop: Workshop) -> list[Group]:
        """Return every group as it was generated last."""
        found = list(failed)
        if shop.progress < self.spec.exempt:
            return found
        for share in self.spec.shares:
            hints = {i: prefix(group.question.reference, share) for i, group in enumerate(failed) if found[i].failed}
            for size in sorted({len(failed[i].attempts) for i, hint in hints.items() if hint}):
                numbers = [i for i, hint in hints.items() if hint and len(failed[i].attempts) == size]
                asked = [hinted(failed[i].question, hints[i], self.spec.template) for i in numbers]
                if shop.cut:
                    return found
                for i, again in zip(numbers, matched(asked, shop.answer(asked, size)), strict=True):
                    if again is not None:
                        found[i] = replace(again, question=failed[i].question, arm=failed[i].arm, hinted=1.0)
        return found
