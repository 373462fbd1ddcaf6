"""Inner rules: what turns a gradient, whole or projected, into a direction."""

from __future__ import annotations

from outlay.inner_rules.adam import Adam
from outlay.inner_rules.base import Direction, InnerRule
from outlay.inner_rules.natural import Natural

METHODS: dict[str, type] = {
    "adam": Adam,
    "natural": Natural,
}

__all__ = ["METHODS", "Adam", "Direction", "InnerRule", "Natural"]
