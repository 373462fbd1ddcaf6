"""Advantages: how much better than expected an answer was."""

from __future__ import annotations

from outlay.advantages.base import Advantage
from outlay.advantages.group import Group

METHODS: dict[str, type] = {
    "group": Group,
}

__all__ = [
    "METHODS",
    "Advantage",
    "Group",
]
