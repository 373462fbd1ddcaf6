"""Scaffold: one failed answer of a failed group is replaced by a success under the least hint that helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.repairs.base import Group, Workshop
from outlay.repairs.failed import OfFailed, check_template, hinted, hints_of, matched, right, with_successes
from outlay.schedules.base import require


@dataclass(frozen=True)
class Scaffold:
    """Ask a failed question once under every level of help; the lowest level whose answer is right gives it, with its hinted prompt, to the group.

    Exactly one failed answer is replaced, so that of n answers one is worth 1: its advantage is sqrt(n - 1) and the others' -1 / sqrt(n - 1), with
    the deviation over n. The answer is trained under the prompt that it was generated from, thus on policy. Where no level helps the group
    stays as it is. All levels are asked at once, as in the released code, and all are charged.

    Hints are ``question.extra["hints"]``: a list of texts, level k showing the first k, or a list of such lists (concepts, plan, solution), each
    shown from its own beginning. Without them they are growing prefixes of the reference, never all of it.

    Args:
        exempt: share of the stage's budget before which nobody is helped, in [0, 1]. The paper waits for 50 updates; as a share that is ours.
        levels: levels made out of the reference where there are no hints, > 0.
        template: the hinted prompt, with ``{question}`` and ``{hint}``.
    """

    title: ClassVar[str] = "One success under the least hint (Scaf-GRPO)"
    paper: ClassVar[Paper | None] = Paper(
        "2510.19807", "Scaf-GRPO: Scaffolded Group Relative Policy Optimization for Enhancing LLM Reasoning", 2025
    )

    exempt: float = 0.1
    levels: int = 8
    template: str = "{question}\n{hint}\n"

    def __post_init__(self) -> None:
        require(0 <= self.exempt <= 1, f"exempt must lie in [0, 1], found {self.exempt}")
        require(self.levels > 0, f"levels must be > 0, found {self.levels}")
        check_template(self.template)

    def open(self, context: Context) -> Scaffolding:
        """Return the repair."""
        return Scaffolding(self)


@dataclass
class Scaffolding(OfFailed):
    """Remember nothing."""

    spec: Scaffold

    def mended(self, failed: Sequence[Group], shop: Workshop) -> list[Group]:
        """Return every group with its lowest success. A group whose levels were not all answered stays as it is: which is lowest is not known."""
        spec = self.spec
        if shop.progress < spec.exempt:
            return list(failed)
        ladders = [[hinted(group.question, hint, spec.template) for hint in hints_of(group.question, spec.levels)] for group in failed]
        asked = [question for ladder in ladders for question in ladder]
        answered = iter(matched(asked, shop.answer(asked, 1) if asked else []))
        found = []
        for group, ladder in zip(failed, ladders, strict=True):
            rungs = [next(answered) for _ in ladder]
            whole = [rung.attempts[0] for rung in rungs if rung is not None]
            successes = [attempt for attempt in whole if right(attempt)] if len(whole) == len(ladder) else []
            found.append(with_successes(group, successes[:1]))
        return found
