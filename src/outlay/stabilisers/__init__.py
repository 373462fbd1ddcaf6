"""Stabilisers: which tokens may still move, and how far."""

from __future__ import annotations

from outlay.stabilisers.base import Stabiliser
from outlay.stabilisers.clip import Clip
from outlay.stabilisers.none import Unmasked

METHODS: dict[str, type] = {
    "none": Unmasked,
    "clip": Clip,
}

__all__ = [
    "METHODS",
    "Clip",
    "Stabiliser",
    "Unmasked",
]
