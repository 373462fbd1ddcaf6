"""Advantages: how much better than expected an answer was."""

from __future__ import annotations

from outlay.advantages.base import Advantage

METHODS: dict[str, type] = {}

__all__ = ["METHODS", "Advantage"]
