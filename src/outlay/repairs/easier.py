"""Easier: a failed group gives way to the answers to an easier question of the same kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.repairs.base import Group, Workshop
from outlay.repairs.failed import OfFailed, matched
from outlay.schedules.base import require


@dataclass(frozen=True)
class Easier:
    """Ask a question one step easier in place of a failed one, and again one step easier while that fails too.

    The group of the easier question is trained on as any other: nothing is hinted, and all is on policy. A question than which nothing is
    easier stays as it is. This is a plain baseline of helped prompts; nobody's paper.

    Args:
        steps: down at most, > 0.
    """

    title: ClassVar[str] = "An easier question instead"
    paper: ClassVar[Paper | None] = None

    steps: int = 1

    def __post_init__(self) -> None:
        require(self.steps > 0, f"steps must be > 0, found {self.steps}")

    def open(self, context: Context) -> Easing:
        """Return the repair."""
        return Easing(self)


@dataclass
class Easing(OfFailed):
    """Remember nothing."""

    spec: Easier

    def mended(self, failed: Sequence[Group], shop: Workshop) -> list[Group]:
        """Return the groups of the easier questions."""
        found = list(failed)
        for _ in range(self.spec.steps):
            lower = {i: shop.easier(group) for i, group in enumerate(found) if group.failed and not shop.cut}
            steps = {i: question for i, question in lower.items() if question is not None}
            for size in sorted({len(found[i].attempts) for i in steps}):
                numbers = [i for i in steps if len(found[i].attempts) == size]
                if shop.cut:
                    return found
                asked = [steps[i] for i in numbers]
                for i, group in zip(numbers, matched(asked, shop.answer(asked, size)), strict=True):
                    if group is not None:
                        found[i] = replace(group, hinted=0.0)
        return found
