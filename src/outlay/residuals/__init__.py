"""Residual rules: what becomes of the part of a gradient that a projection leaves."""

from __future__ import annotations

from outlay.residuals.base import Residual, Split
from outlay.residuals.drop import Drop

METHODS: dict[str, type] = {
    "drop": Drop,
}

__all__ = ["METHODS", "Drop", "Residual", "Split"]
