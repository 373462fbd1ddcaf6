"""Controllers: knobs that answer to what the run shows."""

from __future__ import annotations

from outlay.controllers.base import Controller
from outlay.controllers.plateau import Plateau
from outlay.controllers.short_cycle import ShortCycle

METHODS: dict[str, type] = {
    "plateau": Plateau,
    "short_cycle": ShortCycle,
}

__all__ = [
    "METHODS",
    "Controller",
    "Plateau",
    "ShortCycle",
]
