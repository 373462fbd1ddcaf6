"""Data share in cycles: passes over a part of the data that grows to all of it and shrinks again."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import require


@dataclass(frozen=True)
class DataShareCycle:
    """Share of the data that a pass reads, constant during the pass; the budget is ``epochs`` passes over all data.

    The first share is ``smallest``. After that it grows to min(share / factor, largest) when the last one was ``smallest``, or when it has
    been growing and is not yet ``largest``; otherwise it shrinks to max(share factor, smallest). Shares follow until their sum reaches
    ``epochs``; the pass that passes it is cut by the end of the budget. Progress p lies in the pass whose running sum passes p epochs.

    Args:
        smallest: first and smallest share, in (0, 1].
        largest: largest share, in [smallest, 1].
        factor: what a share is divided by when growing and multiplied by when shrinking, in (0, 1).
        epochs: the budget in passes over all data, > 0; at most 100 000 passes of the smallest share. The paper leaves it to the recipe.
    """

    title: ClassVar[str] = "Cyclical curriculum: data share"
    paper: ClassVar[Paper | None] = Paper("2202.05531", "Cyclical Curriculum Learning", 2022)

    smallest: float = 0.25
    largest: float = 1.0
    factor: float = 0.5
    epochs: float = 20.0
    shares: tuple[float, ...] = field(init=False, repr=False, compare=False)
    _ends: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(0 < self.smallest <= 1, f"smallest must lie in (0, 1], found {self.smallest}")
        require(self.smallest <= self.largest <= 1, f"largest must lie in [{self.smallest}, 1], found {self.largest}")
        require(0 < self.factor < 1, f"factor must lie in (0, 1), found {self.factor}")
        require(0 < self.epochs < math.inf, f"epochs must be finite and > 0, found {self.epochs}")
        passes = self.epochs / self.smallest
        require(passes <= 1e5, f"epochs / smallest must be at most 100000 passes, found {passes:g}")
        shares = [self.smallest]
        growing, spent = False, self.smallest
        while spent < self.epochs:
            last = shares[-1]
            growing = last == self.smallest or (growing and last != self.largest)
            shares.append(min(last / self.factor, self.largest) if growing else max(last * self.factor, self.smallest))
            spent += shares[-1]
        object.__setattr__(self, "shares", tuple(shares))
        object.__setattr__(self, "_ends", tuple(accumulate(shares)))

    def value(self, progress: float) -> float:
        """Return the share of the data that the pass at ``progress`` in [0, 1] reads."""
        # 1e-9 lets a step whose progress is a little below the end of a pass count as having reached it
        index = bisect_right(self._ends, progress * self.epochs + 1e-9 * self.epochs)
        return self.shares[min(index, len(self.shares) - 1)]
