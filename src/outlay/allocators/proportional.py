"""Proportional: by size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outlay.allocators.base import Bound, Claims
from outlay.allocators.solver import largest_remainder
from outlay.arms import IntArray
from outlay.catalog import Paper


@dataclass(frozen=True)
class Proportional:
    """Everyone gets total size / (sum of sizes); without sizes everyone gets the same."""

    title: ClassVar[str] = "Proportional to size"
    paper: ClassVar[Paper | None] = None
    needs_norms: ClassVar[bool] = False
    probe: ClassVar[int] = 0

    def allocate(self, claims: Claims, total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
        """Return the proportional division."""
        sizes = np.ones(len(claims)) if claims.sizes is None else claims.sizes
        return largest_remainder(sizes, total, low=low, high=high)
