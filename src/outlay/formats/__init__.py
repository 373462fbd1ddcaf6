"""Formats: numbers in few bits, for states of optimizers, weights and activations."""

from __future__ import annotations

from outlay.formats.base import Format
from outlay.formats.bf16 import Bf16
from outlay.formats.devices import computes_in, fp8_matmul_available
from outlay.formats.dynamic8 import Dynamic8
from outlay.formats.integer import Integer
from outlay.formats.listing import NAMED, Row, table
from outlay.formats.microscaling import Microscaling
from outlay.formats.small_float import E2M1, E2M3, E3M2, E4M3, E5M2, FP16, SmallFloat

METHODS: dict[str, type] = {
    "bf16": Bf16,
    "integer": Integer,
    "small_float": SmallFloat,
    "microscaling": Microscaling,
    "dynamic8": Dynamic8,
}

__all__ = [
    "E2M1",
    "E2M3",
    "E3M2",
    "E4M3",
    "E5M2",
    "FP16",
    "METHODS",
    "NAMED",
    "Bf16",
    "Dynamic8",
    "Format",
    "Integer",
    "Microscaling",
    "Row",
    "SmallFloat",
    "computes_in",
    "fp8_matmul_available",
    "table",
]
