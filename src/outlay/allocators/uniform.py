"""Uniform: the same for everyone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outlay.allocators.base import Bound, Claims
from outlay.allocators.solver import largest_remainder
from outlay.arms import IntArray
from outlay.catalog import Paper


@dataclass(frozen=True)
class Uniform:
    """Everyone gets total / claimants, the first ones one more where that is no whole number. The baseline of all allocators."""

    title: ClassVar[str] = "Uniform"
    paper: ClassVar[Paper | None] = None
    needs_norms: ClassVar[bool] = False
    probe: ClassVar[int] = 0

    def allocate(self, claims: Claims, total: int, *, low: Bound = 0, high: Bound | None = None) -> IntArray:
        """Return the even division."""
        return largest_remainder(np.ones(len(claims)), total, low=low, high=high)
