"""Stabilisers: which tokens may still move, and how far."""

from __future__ import annotations

from outlay.stabilisers.base import Stabiliser
from outlay.stabilisers.clip import Clip
from outlay.stabilisers.none import Unmasked
from outlay.stabilisers.tapered import Tapered, Truncated

METHODS: dict[str, type] = {
    "none": Unmasked,
    "clip": Clip,
    "truncated": Truncated,
    "tapered": Tapered,
}

__all__ = [
    "METHODS",
    "Clip",
    "Stabiliser",
    "Tapered",
    "Truncated",
    "Unmasked",
]
