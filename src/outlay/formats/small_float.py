"""Small floating-point numbers: 8 bits and fewer, and half precision, with or without a scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from outlay.catalog import Paper
from outlay.formats.float_grid import FloatGrid, Special
from outlay.formats.groups import Groups, check_block, groups_of, largest, pack, packed_bytes, short_scale, unpack
from outlay.layout import Layout, Shape, Slot


@dataclass(frozen=True)
class SmallFloat:
    """x = s v with v = +-1.f 2^e, or +-0.f 2^e at the lowest e; the defaults are E4M3 with 448 as its largest number and no infinity.

    Without scaling s = 1; else s = max |x| / (largest v), rounded up by a factor below 1 + 2^-11 to so few bits that s v is exact, and at least
    2^-100. To nearest the error is at most 2^-(significand + 1) |x| for normal numbers and half the least number for subnormal ones, twice that when
    rounded stochastically. Elements beyond the largest number, which a scale leaves none of, take it. Without a scale, what is not finite stays so
    where the format has a code for it and becomes the largest number where it has none; with one, its group decodes to nan.

    Kept in torch's own type where there is one, otherwise as codes end to end. Names in use: E4M3 (4, 3, nan), E5M2 (5, 2, ieee), E2M1 (2, 1, none),
    E3M2 (3, 2, none), E2M3 (2, 3, none), fp16 (5, 10, ieee).

    Args:
        exponent: bits of the exponent, from 1 to 5.
        significand: bits of f, >= 1; a code takes at most 8 bits but for fp16.
        special: what the largest codes stand for: ``ieee`` infinities and nan, ``nan`` for the last one alone, or ``none``.
        scaling: what shares a scale: ``none``, the whole ``tensor``, a ``row`` along the last axis, or a ``block`` of elements in a row in memory.
        block: elements of a block, >= 1.
    """

    title: ClassVar[str] = "Small floating point"
    paper: ClassVar[Paper | None] = Paper("2209.05433", "FP8 Formats for Deep Learning", 2022)

    exponent: int = 4
    significand: int = 3
    special: Special = "nan"
    scaling: Literal["none", "tensor", "row", "block"] = "none"
    block: int = 128

    def __post_init__(self) -> None:
        check_block(self.block)
        self.grid()

    def grid(self) -> FloatGrid:
        """Return the numbers v."""
        return FloatGrid(self.exponent, self.significand, self.special)

    def _groups(self, shape: Shape) -> Groups | None:
        return None if self.scaling == "none" else groups_of(shape, self.scaling, self.block)

    def layout(self, shape: Shape) -> Layout:
        """The numbers, in torch's type or as codes, and a scale of 4 bytes a group."""
        grid, groups = self.grid(), self._groups(shape)
        codes = Slot((packed_bytes(math.prod(shape), grid.bits),), torch.uint8)
        kept = {"values": Slot(shape, grid.dtype)} if grid.dtype else {"codes": codes}
        return kept if groups is None else kept | {"scales": Slot((groups.count,), torch.float32)}

    def encode(self, x: torch.Tensor, draw: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """Return the numbers and scales."""
        grid, shape = self.grid(), tuple(x.shape)
        groups = self._groups(shape)
        if groups is None:
            return self._kept(grid.round(x.detach().to(torch.float32), draw))
        parts = groups.split(x)
        scale = short_scale(largest(parts) / grid.largest, min(16, 23 - grid.significand))
        rounded = grid.round((parts / scale).nan_to_num(0.0), draw)
        return self._kept(groups.join(rounded, shape)) | {"scales": scale.reshape(-1)}

    def _kept(self, rounded: torch.Tensor) -> dict[str, torch.Tensor]:
        grid = self.grid()
        if grid.dtype is not None:
            return {"values": rounded.to(grid.dtype)}
        if grid.special == "none":
            rounded = rounded.nan_to_num(grid.largest, grid.largest, -grid.largest)
        return {"codes": pack(grid.codes(rounded), grid.bits)}

    def decode(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        """Return numbers times scales."""
        grid, groups = self.grid(), self._groups(shape)
        if grid.dtype is not None:
            numbers = kept["values"].to(torch.float32)
        else:
            numbers = grid.numbers(unpack(kept["codes"], grid.bits, math.prod(shape))).reshape(shape)
        return numbers if groups is None else groups.join(groups.split(numbers) * kept["scales"].reshape(-1, 1), shape)

    def values(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        """Return every number at the kept scales."""
        half, groups = self.grid().positive(), self._groups(shape)
        every = torch.cat([-half.flip(0), half]).reshape(-1, *(1 for _ in shape))
        scale = torch.ones(shape)
        if groups is not None:
            scale = groups.join(groups.split(scale) * kept["scales"].cpu().reshape(-1, 1), shape)
        return (every * scale).to(next(iter(kept.values())).device)


E4M3 = SmallFloat(4, 3, "nan")
E5M2 = SmallFloat(5, 2, "ieee")
E2M1 = SmallFloat(2, 1, "none")
E3M2 = SmallFloat(3, 2, "none")
E2M3 = SmallFloat(2, 3, "none")
FP16 = SmallFloat(5, 10, "ieee")
