"""Estimators: how likely an answer to a question is right, before any is generated."""

from __future__ import annotations

from outlay.estimators.base import Estimates, Estimator, Reads
from outlay.estimators.beta import Beta
from outlay.estimators.category_average import CategoryAverage
from outlay.estimators.features import text_features
from outlay.estimators.in_context import InContext
from outlay.estimators.nearest_neighbour import NearestNeighbour
from outlay.estimators.value_network import ValueNetwork
from outlay.estimators.windowed import Windowed

METHODS: dict[str, type] = {
    "windowed": Windowed,
    "beta": Beta,
    "category_average": CategoryAverage,
    "nearest_neighbour": NearestNeighbour,
    "value_network": ValueNetwork,
    "in_context": InContext,
}

__all__ = [
    "METHODS",
    "Beta",
    "CategoryAverage",
    "Estimates",
    "Estimator",
    "InContext",
    "NearestNeighbour",
    "Reads",
    "ValueNetwork",
    "Windowed",
    "text_features",
]
