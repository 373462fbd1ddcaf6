"""Anchors: what holds a policy near something or keeps it exploring."""

from __future__ import annotations

from outlay.anchors.base import Anchor

METHODS: dict[str, type] = {}

__all__ = ["METHODS", "Anchor"]
