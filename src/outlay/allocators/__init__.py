"""Allocators: who gets how much of an integer total."""

from __future__ import annotations

from outlay.allocators.base import Allocator, Bound, Claims, bounds
from outlay.allocators.solver import greedy, largest_remainder
from outlay.allocators.uniform import Uniform

METHODS: dict[str, type] = {
    "uniform": Uniform,
}

__all__ = ["METHODS", "Allocator", "Bound", "Claims", "Uniform", "bounds", "greedy", "largest_remainder"]
