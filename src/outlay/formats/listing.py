"""The formats in use by name, and what they cost and hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from outlay.formats.base import Format, Lists
from outlay.formats.bf16 import Bf16
from outlay.formats.dynamic8 import Dynamic8
from outlay.formats.integer import Integer
from outlay.formats.microscaling import Microscaling
from outlay.formats.small_float import E4M3, E5M2, FP16, SmallFloat
from outlay.layout import Shape, layout_bytes

#: name -> format
NAMED: dict[str, Format] = {
    "bf16": Bf16(),
    "fp16": FP16,
    "e4m3": E4M3,
    "e5m2": E5M2,
    "e4m3, a scale a row": SmallFloat(4, 3, "nan", "row"),
    "e2m1, blocks of 16": SmallFloat(2, 1, "none", "block", 16),
    "int8, a scale a tensor": Integer(8, scaling="tensor"),
    "int8, a scale a row": Integer(8),
    "uint8, a scale a row": Integer(8, symmetric=False),
    "int4, blocks of 128": Integer(4, scaling="block"),
    "int2, blocks of 128": Integer(2, scaling="block"),
    "mxint8": Microscaling("int8"),
    "mxfp8 e4m3": Microscaling("e4m3"),
    "mxfp8 e5m2": Microscaling("e5m2"),
    "mxfp6 e3m2": Microscaling("e3m2"),
    "mxfp6 e2m3": Microscaling("e2m3"),
    "mxfp4": Microscaling("e2m1"),
    "dynamic8": Dynamic8(),
    "dynamic8, unsigned": Dynamic8(signed=False),
}


@dataclass(frozen=True)
class Row:
    """A format in numbers.

    Args:
        name: of the format.
        bits: kept for an element, scales included, of a matrix of the table's shape.
        largest: the largest number; relative to the largest element of its group, 1, where a scale makes it so.
        smallest: the least number above 0, on the same terms.
        step: largest distance of neighbours, relative to the lower one, where the upper one is more than half the largest; infinite from 0.
    """

    name: str
    bits: float
    largest: float
    smallest: float
    step: float


def table(shape: Shape = (4096, 4096)) -> list[Row]:
    """Return a row for every named format; ``shape``, not empty, is what bits an element are counted for."""
    return [_row(name, form, shape) for name, form in NAMED.items()]


def bits_of(form: Format, shape: Shape) -> float:
    """Return the bits kept for an element of a tensor of this shape."""
    return layout_bytes(form.layout(shape), 4) * 8 / math.prod(shape)


def _row(name: str, form: Format, shape: Shape) -> Row:
    if isinstance(form, Bf16):
        limits = torch.finfo(torch.bfloat16)
        return Row(name, bits_of(form, shape), limits.max, limits.smallest_normal * limits.eps, limits.eps)
    assert isinstance(form, Lists)
    numbers = form.values(form.encode(torch.ones(1)), (1,)).flatten().double().unique()
    above = numbers[numbers >= 0] / (numbers.max() if set(form.layout((1,))) & {"scales", "exponents"} else 1.0)
    lower, upper = above[:-1], above[1:]
    step = ((upper - lower) / lower)[upper > above.max() / 2].max()
    return Row(name, bits_of(form, shape), float(above.max()), float(above[1]), float(step))
