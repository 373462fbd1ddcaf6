"""Microscaling (MX): blocks of 32 numbers in few bits that share a power of two."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from outlay.catalog import Paper
from outlay.formats.base import exponent_of, power_of_two, to_whole
from outlay.formats.float_grid import FloatGrid
from outlay.formats.groups import blocks_of, check_block, largest, pack, packed_bytes, unpack
from outlay.layout import Layout, Shape, Slot

Element = Literal["e4m3", "e5m2", "e3m2", "e2m3", "e2m1", "int8"]

GRIDS: dict[Element, FloatGrid] = {
    "e4m3": FloatGrid(4, 3, "nan"),
    "e5m2": FloatGrid(5, 2, "ieee"),
    "e3m2": FloatGrid(3, 2, "none"),
    "e2m3": FloatGrid(2, 3, "none"),
    "e2m1": FloatGrid(2, 1, "none"),
}


@dataclass(frozen=True)
class Microscaling:
    """x = X v: v one of the element's numbers, X = 2^(floor(log2 max |x|) - floor(log2 (largest v))) of each block along the last axis.

    X is kept as its exponent, in a byte (E8M0); the last block of a row may be shorter. By this rule, the standard's, elements between X (largest v)
    and the next power of two are cut to X (largest v): at most 1/4 of such an element is lost for e2m1, 1/8 for e4m3, e5m2 and e3m2, 1/16 for e2m3
    and 1/128 for int8. For all others the error is at most 2^-(significand + 1) |x|, or half of X times the least number, as for the element itself;
    X / 128 for int8, whose numbers are k / 64 with |k| <= 127. A block with an element that is not finite decodes to nan. Exponents of X lie in
    [-126, 127].

    Args:
        element: the numbers: MXFP8 (``e4m3``, ``e5m2``), MXFP6 (``e3m2``, ``e2m3``), MXFP4 (``e2m1``, two a byte), MXINT8 (``int8``).
        cut: the standard's rule; else X is the least power of two that cuts no element off, so that stochastic rounding is right on average for all.
        block: elements that share X, >= 1; 32 in the standard.
    """

    title: ClassVar[str] = "Microscaling (MX)"
    paper: ClassVar[Paper | None] = Paper("2310.10537", "Microscaling Data Formats for Deep Learning", 2023)

    element: Element = "e4m3"
    cut: bool = True
    block: int = 32

    def __post_init__(self) -> None:
        if self.element != "int8" and self.element not in GRIDS:
            raise ValueError(f"element must be one of {', '.join(GRIDS)}, int8, found {self.element}")
        check_block(self.block)

    @property
    def bits(self) -> int:
        """Of an element's code."""
        return 8 if self.element == "int8" else GRIDS[self.element].bits

    @property
    def largest(self) -> float:
        """The largest v."""
        return 127 / 64 if self.element == "int8" else GRIDS[self.element].largest

    def layout(self, shape: Shape) -> Layout:
        """Codes end to end, and a byte a block."""
        codes = Slot((packed_bytes(math.prod(shape), self.bits),), torch.uint8)
        return {"codes": codes, "exponents": Slot((blocks_of(shape, self.block).count,), torch.uint8)}

    def encode(self, x: torch.Tensor, draw: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """Return codes and exponents."""
        shape = tuple(x.shape)
        blocks = blocks_of(shape, self.block)
        parts = blocks.split(x)
        top = largest(parts)
        usable = torch.where(top.isfinite(), top, 1.0)
        exponent = (exponent_of(usable) - math.floor(math.log2(self.largest))).clamp(-126, 127)
        if not self.cut:
            exponent = exponent + (usable > self.largest * power_of_two(exponent)).to(torch.int32)
        rounded = self._round((parts / power_of_two(exponent)).nan_to_num(0.0, 0.0, 0.0), draw)
        kept_exponent = torch.where(top.isfinite(), exponent + 127, 255).to(torch.uint8)
        return {"codes": pack(self._codes(blocks.join(rounded, shape)), self.bits), "exponents": kept_exponent.reshape(-1)}

    def decode(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        """Return numbers times powers of two."""
        blocks = blocks_of(shape, self.block)
        codes = unpack(kept["codes"], self.bits, math.prod(shape))
        numbers = ((codes + 128) % 256 - 128) / 64 if self.element == "int8" else GRIDS[self.element].numbers(codes)
        exponent = kept["exponents"].to(torch.int32).reshape(-1, 1)
        # 0, which no block is encoded with, gives 0: so do states before the first step
        power = torch.where(exponent == 255, torch.nan, power_of_two(exponent - 127))
        return blocks.join(blocks.split(numbers) * power, shape)

    def values(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        """Return every number at the kept exponents."""
        half = torch.arange(128) / 64 if self.element == "int8" else GRIDS[self.element].positive()
        every = torch.cat([-half.flip(0), half])
        codes = [self._codes(torch.full(shape, float(number))) for number in every]
        return torch.stack([self.decode({**kept, "codes": pack(one, self.bits)}, shape) for one in codes])

    def _round(self, x: torch.Tensor, draw: torch.Generator | None) -> torch.Tensor:
        if self.element == "int8":
            return (to_whole(x * 64, draw) / 64).clamp(-self.largest, self.largest)
        return GRIDS[self.element].round(x, draw)

    def _codes(self, rounded: torch.Tensor) -> torch.Tensor:
        if self.element == "int8":
            return (rounded * 64).to(torch.int64) & 255
        return GRIDS[self.element].codes(rounded)
