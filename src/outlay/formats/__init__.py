"""Formats: numbers in few bits, for states of optimizers, weights and activations."""

from __future__ import annotations

from outlay.formats.base import Format
from outlay.formats.bf16 import Bf16

METHODS: dict[str, type] = {
    "bf16": Bf16,
}

__all__ = ["METHODS", "Bf16", "Format"]
