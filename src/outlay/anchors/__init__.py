"""Anchors: what holds a policy near something or keeps it exploring."""

from __future__ import annotations

from outlay.anchors.base import Anchor
from outlay.anchors.kl import Kl

METHODS: dict[str, type] = {
    "kl": Kl,
}

__all__ = [
    "METHODS",
    "Anchor",
    "Kl",
]
