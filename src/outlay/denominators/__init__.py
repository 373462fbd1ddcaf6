"""Denominators: what the likelihood of a token is divided by."""

from __future__ import annotations

from outlay.denominators.base import Denominator

METHODS: dict[str, type] = {}

__all__ = ["METHODS", "Denominator"]
