"""Estimators: how likely an answer to a question is right, before any is generated."""

from __future__ import annotations

from outlay.estimators.base import Estimates, Estimator, Reads
from outlay.estimators.windowed import Windowed

METHODS: dict[str, type] = {
    "windowed": Windowed,
}

__all__ = ["METHODS", "Estimates", "Estimator", "Reads", "Windowed"]
