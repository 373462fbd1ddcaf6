"""Failed: what repairs of groups in which every answer failed have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from outlay.prompts.base import Question
from outlay.repairs.base import Attempt, Forgetful, Group, Workshop
from outlay.schedules.base import require


class OfFailed(Forgetful):
    """A repair of failed groups alone: all others come back as they are, in their places. ``mended`` is what differs."""

    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        """Return the first ``wanted`` groups, the failed ones mended; unchanged when the budget has ended."""
        kept = list(groups[:wanted])
        numbers = [number for number, group in enumerate(kept) if group.failed]
        if numbers and not shop.cut:
            for number, group in zip(numbers, self.mended([kept[number] for number in numbers], shop), strict=True):
                kept[number] = group
        return kept

    def mended(self, failed: Sequence[Group], shop: Workshop) -> list[Group]:
        """Return what takes the place of each failed group: the group itself where nothing helped."""
        raise NotImplementedError


def right(attempt: Attempt) -> bool:
    """Return whether an answer was judged and is worth more than 0."""
    return attempt.judged and attempt.value > 0


def matched(asked: Sequence[Question], answered: Sequence[Group]) -> list[Group | None]:
    """Return the group that came back for every question that was asked; None for those that the budget cut off."""
    found: list[Group | None] = []
    position = 0
    for question in asked:
        here = position < len(answered) and same(answered[position].question, question)
        found.append(answered[position] if here else None)
        position += here
    return found


def same(one: Question, other: Question) -> bool:
    """Return whether two questions ask the same in the same place."""
    return (one.place, one.text) == (other.place, other.text)


def with_successes(group: Group, successes: Sequence[Attempt]) -> Group:
    """Return the group with as many of its first failed answers replaced; what is beyond them is left out."""
    waiting = list(successes)
    attempts = [waiting.pop(0) if waiting and one.judged and one.value <= 0 else one for one in group.attempts]
    joined = len(successes) - len(waiting)
    return replace(group, attempts=attempts, hinted=group.hinted + joined / len(attempts))


# ---- hints -------------------------------------------------------------------------------------------------------------------------


def check_template(template: str) -> None:
    """Raise ``ValueError`` unless a template holds ``{question}`` and ``{hint}``."""
    require("{question}" in template and "{hint}" in template, f"template must hold {{question}} and {{hint}}, found {template!r}")


def hinted(question: Question, hint: str, template: str) -> Question:
    """Return the question with a hint in its text. Braces in question and hint are left as they are."""
    parts = {"{question}": question.text, "{hint}": hint}
    return replace(question, text=re.sub(r"\{question\}|\{hint\}", lambda found: parts[found[0]], template))


def prefix(text: str, share: float) -> str:
    """Return the first round(share * length) characters of a text."""
    return text[: round(share * len(text))]


def hints_of(question: Question, levels: int) -> list[str]:
    """Return a question's hints, from little help to much; empty where there are none.

    ``question.extra["hints"]`` is a list of texts, of which each level shows one more, or a list of such lists (concepts, plan, solution), gone
    through one after the other, each from its beginning. Without it, level k of n shows the first k / (n + 1) of ``question.reference``.

    Args:
        question: what was asked.
        levels: levels made out of the reference, > 0.
    """
    written = question.extra.get("hints")
    if written:
        tiers = [[tier] if isinstance(tier, str) else list(tier) for tier in written]
        if all(isinstance(tier, str) for tier in written):
            tiers = [list(written)]
        found = ["\n".join(tier[: level + 1]) for tier in tiers for level in range(len(tier))]
    else:
        found = [prefix(question.reference, level / (levels + 1)) for level in range(1, levels + 1)]
    return list(dict.fromkeys(hint for hint in found if hint))
