"""Expert failures: an answer goes on from where a failed solution of an expert was still good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.repairs.base import Group, Workshop
from outlay.repairs.failed import OfFailed, matched, prefix, right, with_successes
from outlay.schedules.base import require


@dataclass(frozen=True)
class ExpertFailures:
    """Let the model go on from prefixes of failed expert solutions to a failed question; what succeeds joins the group.

    A success from a prefix says that the prefix was of use. Only what the model wrote itself is trained, given question and prefix: the
    expert's tokens are part of the prompt, so that what was harmful in them is never imitated. At most ``joined`` failed answers are replaced, the
    shortest prefixes first: the least help. All attempts are charged.

    Failed solutions are ``question.extra["failures"]``, a list of texts; a question without them stays as it is. The paper trains on useful
    expert actions as well, and does not say how many prefixes it starts from; quarters of its characters are ours.

    Args:
        shares: of each failed solution that answers begin with, rising, each in (0, 1).
        joined: successes that join a group at most, > 0.
    """

    title: ClassVar[str] = "Going on from an expert's failures (EEF)"
    paper: ClassVar[Paper | None] = Paper("2504.13145", "Exploring Expert Failures Improves LLM Agent Tuning", 2025)

    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    joined: int = 1

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in zip((0.0, *self.shares), self.shares, strict=False))
        require(bool(self.shares) and rising and self.shares[-1] < 1, f"shares must rise within (0, 1), found {self.shares}")
        require(self.joined > 0, f"joined must be > 0, found {self.joined}")

    def open(self, context: Context) -> Exploring:
        """Return the repair."""
        return Exploring(self)


@dataclass
class Exploring(OfFailed):
    """Remember nothing."""

    spec: ExpertFailures

    def mended(self, failed: Sequence[Group], shop: Workshop) -> list[Group]:
        """Return every group with what succeeded. A group whose prefixes were not all gone on from stays as it is."""
        starts = [self._starts(group) for group in failed]
        asked = [group.question for group, begun in zip(failed, starts, strict=True) for _ in begun]
        begun = [text for texts in starts for text in texts]
        answered = iter(matched(asked, shop.answer(asked, 1, begun) if asked else []))
        found = []
        for group, texts in zip(failed, starts, strict=True):
            whole = [one.attempts[0] for one in [next(answered) for _ in texts] if one is not None]
            successes = [attempt for attempt in whole if right(attempt)] if len(whole) == len(texts) else []
            found.append(with_successes(group, successes[: self.spec.joined]))
        return found

    def _starts(self, group: Group) -> list[str]:
        failures = group.question.extra.get("failures") or []
        found = {prefix(text, share) for text in failures for share in self.spec.shares}
        return sorted(found - {""}, key=lambda text: (len(text), text))
