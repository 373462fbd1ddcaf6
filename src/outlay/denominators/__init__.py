"""Denominators: what the likelihood of a token is divided by."""

from __future__ import annotations

from outlay.denominators.base import Denominator
from outlay.denominators.behaviour import Behaviour
from outlay.denominators.current import Current
from outlay.denominators.old import Old
from outlay.denominators.unknown import Unknown

METHODS: dict[str, type] = {
    "current": Current,
    "behaviour": Behaviour,
    "old": Old,
    "unknown": Unknown,
}

__all__ = [
    "METHODS",
    "Behaviour",
    "Current",
    "Denominator",
    "Old",
    "Unknown",
]
