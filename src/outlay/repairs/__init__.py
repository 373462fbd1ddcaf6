"""Repairs: what becomes of groups that carry no signal."""

from __future__ import annotations

from outlay.repairs.base import Attempt, Group, Mending, Repair, Replays, Workshop
from outlay.repairs.refill import Refill

METHODS: dict[str, type] = {
    "refill": Refill,
}

__all__ = ["METHODS", "Attempt", "Group", "Mending", "Refill", "Repair", "Replays", "Workshop"]
