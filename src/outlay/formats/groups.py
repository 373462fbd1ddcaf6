"""What formats with scales share: groups of elements with a scale each, scales in few bits, and codes packed into bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from outlay.layout import Shape

#: elements that share a scale: all; those along the last axis; so many in a row in memory
Scaling = Literal["tensor", "row", "block"]

#: scales are not smaller: products with codes stay exact
LEAST_SCALE = 2.0**-100


@dataclass(frozen=True)
class Groups:
    """A tensor seen as ``rows`` of ``width`` elements, each cut into groups of ``size``; the last of a row may be shorter.

    Args:
        rows: how many, >= 0.
        width: elements in a row, >= 1.
        size: elements in a group, >= 1.
    """

    rows: int
    width: int
    size: int

    @property
    def count(self) -> int:
        """How many groups there are."""
        return self.rows * -(-self.width // self.size)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """Return the elements in single precision, (count, size), filled up with zeros."""
        flat = x.detach().to(torch.float32).reshape(self.rows, self.width)
        return functional.pad(flat, (0, -self.width % self.size)).reshape(self.count, self.size)

    def join(self, groups: torch.Tensor, shape: Shape) -> torch.Tensor:
        """Return the tensor of a shape from its groups, (count, size)."""
        return groups.reshape(self.rows, self.width + -self.width % self.size)[:, : self.width].reshape(shape)


def groups_of(shape: Shape, scaling: Scaling, block: int) -> Groups:
    """Return the groups of a tensor; one without elements has none."""
    count = math.prod(shape)
    if not count:
        return Groups(0, 1, 1)
    if scaling == "block":
        return Groups(1, count, block)
    width = count if scaling == "tensor" else (shape[-1] if shape else 1)
    return Groups(count // width, width, width)


def blocks_of(shape: Shape, block: int) -> Groups:
    """Return blocks along the last axis."""
    row = groups_of(shape, "row", 1)
    return Groups(row.rows, row.width, block)


def check_block(block: int) -> None:
    """Refuse blocks without elements."""
    if block < 1:
        raise ValueError(f"block must be >= 1, found {block}")


def short_scale(scale: torch.Tensor, bits: int) -> torch.Tensor:
    """Return scales rounded up to a significand of so few bits that products with codes are exact, nan where they are not finite.

    Because the products are exact, the largest element's value gives the same scale again: encoding what was decoded changes nothing.
    """
    mantissa, exponent = torch.frexp(scale.clamp_min(LEAST_SCALE))
    short = torch.ceil(mantissa * 2.0**bits) * 2.0**-bits
    whole = torch.ldexp(short, exponent)
    return torch.where(scale.isfinite(), whole, torch.nan)


def largest(groups: torch.Tensor) -> torch.Tensor:
    """Return each group's largest magnitude, (groups, 1)."""
    return groups.abs().amax(dim=1, keepdim=True) if len(groups) else groups.new_zeros((0, 1))


def packed_bytes(count: int, bits: int) -> int:
    """Return the bytes that so many codes take."""
    return -(-count * bits // 8)


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Return codes in [0, 2^bits), any shape, end to end in bytes, the lowest bits first: two of 4 bits a byte, four of 6 bits in three."""
    flat = codes.reshape(-1)
    if bits == 8:
        return flat.to(torch.uint8)
    eights = functional.pad(flat.to(torch.int64), (0, -len(flat) % 8)).reshape(-1, 8)
    word = (eights << torch.arange(0, 8 * bits, bits, device=codes.device)).sum(1, keepdim=True)
    spread = (word >> torch.arange(0, 8 * bits, 8, device=codes.device)) & 255
    return spread.reshape(-1)[: packed_bytes(len(flat), bits)].to(torch.uint8)


def unpack(kept: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """Return so many codes, (count,), in 64-bit whole numbers."""
    if bits == 8:
        return kept.to(torch.int64)
    spread = functional.pad(kept.to(torch.int64), (0, -len(kept) % bits)).reshape(-1, bits)
    word = (spread << torch.arange(0, 8 * bits, 8, device=kept.device)).sum(1, keepdim=True)
    return ((word >> torch.arange(0, 8 * bits, bits, device=kept.device)) & (2**bits - 1)).reshape(-1)[:count]
