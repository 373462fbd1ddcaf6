"""Anchors: what holds a policy near something or keeps it exploring."""

from __future__ import annotations

from outlay.anchors.base import Anchor
from outlay.anchors.entropy import Entropy
from outlay.anchors.kl import Kl
from outlay.anchors.low_probability import LowProbability

METHODS: dict[str, type] = {
    "kl": Kl,
    "entropy": Entropy,
    "low_probability": LowProbability,
}

__all__ = [
    "METHODS",
    "Anchor",
    "Entropy",
    "Kl",
    "LowProbability",
]
