"""Stabilisers: which tokens may still move, and how far."""

from __future__ import annotations

from outlay.stabilisers.base import Stabiliser

METHODS: dict[str, type] = {}

__all__ = ["METHODS", "Stabiliser"]
