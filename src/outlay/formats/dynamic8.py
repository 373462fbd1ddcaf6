"""Dynamic 8-bit numbers by blocks, for the states of optimizers: fine steps near the largest value, and seven decades below it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.formats.groups import check_block, groups_of, largest
from outlay.layout import Layout, Shape, Slot


@dataclass(frozen=True)
class Dynamic8:
    """x = n q with n = max |x| of a block of elements in a row in memory, and q from a code book with as many steps in each decade as bits allow:

        q in {0} and +- 10^(i - 6) (midpoints of 2^i equal parts of [0.1, 1]), i = 0, ..., 6     (unsigned: 10^(i - 7), i = 0, ..., 7)

    all divided by the largest, so that the largest element of a block is exact and encoding what was decoded changes nothing; in the published table
    the largest negative value is not -1. Of 256 codes signed numbers use 255. To nearest the error is at most 0.0071 n (unsigned 0.0036 n) and, of
    |x| >= 10^-6 n (10^-7 n), at most 0.72 |x|; twice that when rounded stochastically. A block with an element that is not finite decodes to nan.

    Args:
        signed: whether numbers may be negative; unsigned, negative ones become 0.
        block: elements that share n, >= 1.
        positive: what is not zero takes at least the least value above it and never becomes zero: for second moments, whose root stands in a
            denominator. The error of such elements is at most that value, 5.6e-7 n (5.6e-8 n).
    """

    title: ClassVar[str] = "Dynamic 8-bit blocks"
    paper: ClassVar[Paper | None] = Paper("2110.02861", "8-bit Optimizers via Block-wise Quantization", 2021)

    signed: bool = True
    block: int = 256
    positive: bool = False

    def __post_init__(self) -> None:
        check_block(self.block)

    def layout(self, shape: Shape) -> Layout:
        """A byte an element and 4 bytes a block."""
        blocks = groups_of(shape, "block", self.block)
        return {"codes": Slot(shape, torch.uint8), "scales": Slot((blocks.count,), torch.float32)}

    def encode(self, x: torch.Tensor, draw: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """Return codes and each block's largest magnitude."""
        shape, book = tuple(x.shape), code_book(self.signed).to(x.device)
        blocks = groups_of(shape, "block", self.block)
        parts = blocks.split(x)
        parts = parts if self.signed else torch.where(parts < 0, 0.0, parts)
        top = largest(parts)
        share = (parts / torch.where(top > 0, top, 1.0)).nan_to_num(0.0, 0.0, 0.0)
        size = share.abs()
        if draw is None:
            code = nearest(size, self.signed)
        else:
            low = (torch.searchsorted(book, size, right=True) - 1).clamp(0, len(book) - 2)
            part = (size - book[low]) / (book[low + 1] - book[low])
            code = low + (torch.rand(part.shape, generator=draw, device=x.device) < part)
        if self.positive:
            code = torch.where(size > 0, code.clamp_min(1), code)
        code = torch.where(share < 0, -code, code)
        scale = torch.where(top.isfinite(), top, torch.nan)
        return {"codes": (blocks.join(code, shape) & 255).to(torch.uint8), "scales": scale.reshape(-1)}

    def decode(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        """Return the book's values times the blocks' magnitudes."""
        blocks, codes = groups_of(shape, "block", self.block), kept["codes"]
        numbers = every_code(self.signed).to(codes.device)[codes.to(torch.int32)]
        return blocks.join(blocks.split(numbers).mul_(kept["scales"].reshape(-1, 1)), shape)

    def values(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        """Return every code's value at the kept magnitudes."""
        every = [code for code in range(256) if not (self.signed and code == 128)]
        return torch.stack([self.decode({**kept, "codes": torch.full(shape, code, dtype=torch.uint8)}, shape) for code in every])


@lru_cache(maxsize=2)
def code_book(signed: bool) -> torch.Tensor:
    """Return the values from 0 to 1: 128 of them when signed, else 256."""
    levels = 7 if signed else 8
    values = [0.0]
    for level in range(levels):
        parts = 2**level
        values += [10.0 ** (level - levels + 1) * (0.1 + 0.9 * (part + 0.5) / parts) for part in range(parts)]
    assert math.log2(len(values)) == levels
    return torch.tensor(values, dtype=torch.float64).div(values[-1]).to(torch.float32)


def nearest(size: torch.Tensor, signed: bool) -> torch.Tensor:
    """Return the index of the nearest value of the book, the smaller of two that are equally near; ``size`` in [0, 1], single precision, (any shape).

    A search would compare every element eight times. Between neighbouring cells of a grid, numbers that agree in exponent and the first 10 bits of
    the significand, lies at most one border, so that a table of the cells and one comparison tell.
    """
    borders, cells = (table.to(size.device) for table in _tables(signed))
    cell = (size.contiguous().view(torch.int32) >> 13).sub_((127 - _OCTAVES) << 10).clamp_min_(0).flatten()
    code = cells.index_select(0, cell)
    return code.add_(size.flatten() > borders.index_select(0, code)).view(size.shape)


#: below 2^-26 everything is nearest to 0
_OCTAVES = 26


@lru_cache(maxsize=2)
def _tables(signed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the borders between neighbouring values, and the index that each cell of the grid begins in."""
    book = code_book(signed)
    borders = torch.cat([(book[1:] + book[:-1]) / 2, torch.tensor([torch.inf])])
    starts = ((torch.arange((_OCTAVES << 10) + 1, dtype=torch.int32) + ((127 - _OCTAVES) << 10)) << 13).view(torch.float32)
    starts[0] = 0.0
    return borders, torch.bucketize(starts, borders, out_int32=True)


@lru_cache(maxsize=2)
def every_code(signed: bool) -> torch.Tensor:
    """Return the value of each of the 256 codes; signed ones are two's complements."""
    book = code_book(signed)
    return torch.cat([book, -book[-1:], -book[1:].flip(0)]) if signed else book
