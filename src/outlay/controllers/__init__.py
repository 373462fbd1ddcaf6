"""Controllers: knobs that answer to what the run shows."""

from __future__ import annotations

from outlay.controllers.base import Controller
from outlay.controllers.plateau import Plateau

METHODS: dict[str, type] = {
    "plateau": Plateau,
}

__all__ = ["METHODS", "Controller", "Plateau"]
