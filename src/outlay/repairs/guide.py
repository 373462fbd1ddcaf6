"""Guide: some failed answers give way to guided ones, which are trained under the prompt without guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.prompts.base import Question
from outlay.repairs.base import Group, Workshop
from outlay.repairs.failed import OfFailed, check_template, hinted, matched, prefix
from outlay.schedules.base import require


@dataclass(frozen=True)
class Guide:
    """Answer a failed question again under guidance g; the answers are trained as if g had not been there.

    A guided answer o carries the plain prompt x and the log probabilities that it was sampled with, under (x, g), so that an objective with
    ``denominators/behaviour`` has the ratio pi(o_t | x, o_<t) / mu(o_t | x, g, o_<t): without clipping E_guided[ratio f] = E_plain[f].
    ``denominators/old`` would divide by the policy under x instead, and correct nothing. Where guidance makes likely what was nearly impossible
    the ratio is close to 0 and little is learnt: look at the objective's measure ``ratio``.

    Guided answers take the places of the first failed ones; neither is chosen by its worth. The paper draws as many as the group has and leaves open
    how many stay; here all that are drawn stay, and the group keeps its size. Guidance is ``question.extra["hints"]``, all of them, or the
    first part of the reference.

    Args:
        share: of the group that is guided, in (0, 1].
        portion: of the reference that is shown where there are no hints, in (0, 1].
        exempt: share of the stage's budget before which nobody is helped, in [0, 1].
        template: the guided prompt, with ``{question}`` and ``{hint}``.
    """

    title: ClassVar[str] = "Guided answers trained without guidance (Guide-GRPO)"
    paper: ClassVar[Paper | None] = Paper("2506.13923", "Adaptive Guidance Accelerates Reinforcement Learning of Reasoning Models", 2025)

    share: float = 0.5
    portion: float = 0.5
    exempt: float = 0.0
    template: str = "{question}\n{hint}\n"

    def __post_init__(self) -> None:
        require(0 < self.share <= 1, f"share must lie in (0, 1], found {self.share}")
        require(0 < self.portion <= 1, f"portion must lie in (0, 1], found {self.portion}")
        require(0 <= self.exempt <= 1, f"exempt must lie in [0, 1], found {self.exempt}")
        check_template(self.template)

    def open(self, context: Context) -> Guiding:
        """Return the repair."""
        return Guiding(self)

    def guidance(self, question: Question) -> str:
        """Return all of a question's hints, or the first part of its reference; empty where it has neither."""
        written = question.extra.get("hints")
        if not written:
            return prefix(question.reference, self.portion)
        return "\n".join(text for tier in written for text in ([tier] if isinstance(tier, str) else tier))


@dataclass
class Guiding(OfFailed):
    """Remember nothing."""

    spec: Guide

    def mended(self, failed: Sequence[Group], shop: Workshop) -> list[Group]:
        """Return every group with its guided share."""
        found = list(failed)
        if shop.progress < self.spec.exempt:
            return found
        guidance = [self.spec.guidance(group.question) for group in failed]
        drawn = [max(1, round(self.spec.share * len(group.attempts))) for group in failed]
        for size in sorted(set(drawn)):
            numbers = [i for i, one in enumerate(drawn) if one == size and guidance[i]]
            asked = [hinted(failed[i].question, guidance[i], self.spec.template) for i in numbers]
            if shop.cut or not asked:
                continue
            for i, guided in zip(numbers, matched(asked, shop.answer(asked, size)), strict=True):
                if guided is not None:
                    group, prompt = failed[i], failed[i].attempts[0].prompt
                    attempts = [replace(one, prompt=prompt) for one in guided.attempts] + group.attempts[size:]
                    found[i] = replace(group, attempts=attempts, hinted=size / len(attempts))
        return found
