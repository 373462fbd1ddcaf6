"""Composition: products of schedules, and schedules one after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.schedules.base import Schedule, require


@dataclass(frozen=True)
class Product:
    """Multiply schedules: m(p) = prod_i factors_i(p).

    Args:
        factors: the schedules, at least one.
    """

    title: ClassVar[str] = "Product of schedules"
    paper: ClassVar[Paper | None] = None

    factors: tuple[Schedule, ...]

    def __post_init__(self) -> None:
        require(len(self.factors) >= 1, "factors must hold at least one schedule, found none")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        return math.prod(factor.value(progress) for factor in self.factors)


@dataclass(frozen=True)
class Sequence:
    """Schedules one after the other: piece i runs from its share's start to its end and sees progress 0 to 1 there.

    Args:
        pieces: the schedules, at least one.
        shares: share of the budget for each piece, > 0; they are normalised. Empty means equal shares.
    """

    title: ClassVar[str] = "Schedules in sequence"
    paper: ClassVar[Paper | None] = None

    pieces: tuple[Schedule, ...]
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require(len(self.pieces) >= 1, "pieces must hold at least one schedule, found none")
        require(
            not self.shares or len(self.shares) == len(self.pieces),
            f"{len(self.pieces)} pieces need as many shares, found {len(self.shares)}",
        )
        require(all(0 < share < math.inf for share in self.shares), f"shares must be finite and > 0, found {self.shares}")

    def value(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        shares = self.shares or (1.0,) * len(self.pieces)
        start, total = 0.0, math.fsum(shares)
        for i, piece in enumerate(self.pieces[:-1]):
            end = math.fsum(shares[: i + 1]) / total
            # 1e-9 lets progress 0.3 count as the end of the shares 0.1 and 0.2, whose sum is a little more
            if progress < end - 1e-9:
                return piece.value(max(0.0, (progress - start) / (end - start)))
            start = end
        return self.pieces[-1].value(min(1.0, max(0.0, (progress - start) / (1.0 - start))) if start < 1.0 else 1.0)
