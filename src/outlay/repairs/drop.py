"""Drop: groups whose answers are all worth the same are left out, and nothing is asked in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.repairs.base import Forgetful, Group, Workshop


@dataclass(frozen=True)
class Drop:
    """Keep the groups that vary; the batch becomes smaller. Nothing is generated for it.

    A loss that is a mean over the batch becomes a mean over what teaches, so that its step is larger than with the silent groups in it: by
    1 / (share that varies). Compare with a learning rate of its own. A batch in which nothing varies is lost, but paid for.
    """

    title: ClassVar[str] = "Drop silent groups"
    paper: ClassVar[Paper | None] = Paper("2503.14476", "DAPO: An Open-Source LLM Reinforcement Learning System at Scale", 2025)

    def open(self, context: Context) -> Dropping:
        """Return the repair."""
        return Dropping()


@dataclass
class Dropping(Forgetful):
    """Remember nothing."""

    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        """Return the groups that vary."""
        return [group for group in groups if group.varied][:wanted]
