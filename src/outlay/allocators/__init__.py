"""Allocators: who gets how much of an integer total."""

from __future__ import annotations

from outlay.allocators.base import Allocator, Bound, Claims, bounds, filled
from outlay.allocators.cures import Cures
from outlay.allocators.dart import DartPropToDifficulty, DartUniform
from outlay.allocators.group_collection import Collection, GroupCollection, LearningCurve
from outlay.allocators.gvm import Gvm
from outlay.allocators.knapsack import Knapsack
from outlay.allocators.neyman import Neyman
from outlay.allocators.proportional import Proportional
from outlay.allocators.solver import greedy, largest_remainder
from outlay.allocators.uniform import Uniform

METHODS: dict[str, type] = {
    "uniform": Uniform,
    "proportional": Proportional,
    "neyman": Neyman,
    "knapsack": Knapsack,
    "gvm": Gvm,
    "cures": Cures,
    "dart_uniform": DartUniform,
    "dart_prop_to_difficulty": DartPropToDifficulty,
    "group_collection": GroupCollection,
}

__all__ = [
    "METHODS",
    "Allocator",
    "Bound",
    "Claims",
    "Collection",
    "Cures",
    "DartPropToDifficulty",
    "DartUniform",
    "GroupCollection",
    "Gvm",
    "Knapsack",
    "LearningCurve",
    "Neyman",
    "Proportional",
    "Uniform",
    "bounds",
    "filled",
    "greedy",
    "largest_remainder",
]
