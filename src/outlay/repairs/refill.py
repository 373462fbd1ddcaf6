"""Refill: groups outside a band of success are thrown away, and further questions are asked in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.repairs.base import Forgetful, Group, Workshop
from outlay.schedules.base import require


@dataclass(frozen=True)
class Refill:
    """Keep a group when its answers differ in worth and low <= mean success <= high; ask again until the batch is full.

    The open band (0, 1), which the defaults are, is DAPO's dynamic sampling (2503.14476); ``low`` = 1 - ``high`` is balanced online difficulty
    filtering. What is thrown away stays charged: that is what it costs.

    Args:
        low: least mean success kept, in [0, 1).
        high: most, in (low, 1].
        rounds: generations at most until the batch is full, > 0; then it stays smaller.
    """

    title: ClassVar[str] = "Refill outside a band of success"
    paper: ClassVar[Paper | None] = Paper("2504.03380", "Online Difficulty Filtering for Reasoning Oriented Reinforcement Learning", 2025)

    low: float = 0.0
    high: float = 1.0
    rounds: int = 3

    def __post_init__(self) -> None:
        require(0 <= self.low < self.high <= 1, f"the band must be 0 <= low < high <= 1, found {self.low} to {self.high}")
        require(self.rounds > 0, f"rounds must be > 0, found {self.rounds}")

    def open(self, context: Context) -> Refilling:
        """Return the repair."""
        return Refilling(self)


@dataclass
class Refilling(Forgetful):
    """Remember nothing."""

    spec: Refill

    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        """Return the groups in the band, topped up."""
        kept = [group for group in groups if self.keeps(group)]
        for _ in range(self.spec.rounds - 1):
            if len(kept) >= wanted or shop.cut:
                break
            kept += [group for group in shop.ask(wanted - len(kept)) if self.keeps(group)]
        return kept[:wanted]

    def keeps(self, group: Group) -> bool:
        """Return whether a group is trained on."""
        return group.varied and self.spec.low <= group.rate <= self.spec.high
