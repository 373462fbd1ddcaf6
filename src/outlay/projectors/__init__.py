"""Projectors: which part of a gradient an optimizer keeps state for."""

from __future__ import annotations

from outlay.projectors.base import Place, Projector
from outlay.projectors.svd import Svd

METHODS: dict[str, type] = {
    "svd": Svd,
}

__all__ = ["METHODS", "Place", "Projector", "Svd"]
