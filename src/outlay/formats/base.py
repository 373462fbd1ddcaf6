"""The format seam: how numbers are kept in few bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch

from outlay.layout import Layout, Shape


@runtime_checkable
class Format(Protocol):
    """Writes a tensor in few bits and reads it back.

    ``decode(encode(x))`` is the nearest representable value of every element, or, with a generator, one of the two neighbours with the
    probability that makes it right on average (stochastic rounding): E[decode(encode(x))] = x within the format's range. Zeros stay zeros, and what
    is all zero (an optimizer's state before the first step) decodes to zeros.
    """

    def layout(self, shape: Shape) -> Layout:
        """Return what is kept of a tensor of this shape: codes, scales. Names are the keys of ``encode``."""
        ...

    def encode(self, x: torch.Tensor, draw: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """Return what is kept of ``x``, (any shape); with ``draw``, a generator on its device, rounded stochastically."""
        ...

    def decode(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        """Return the tensor in single precision."""
        ...


@runtime_checkable
class Lists(Protocol):
    """A format with so few codes that all values can be listed."""

    def values(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        """Return every value that an element could have had beside the kept scales, (codes, *shape); codes without a finite value are left out."""
        ...


def round_to(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor, draw: torch.Generator | None) -> torch.Tensor:
    """Return ``low`` or ``high``, the neighbours of ``x``: the nearer one, or with a generator the upper one with probability
    (x - low) / (high - low). Where both are the same that is it."""
    gap = (high - low).clamp_min(torch.finfo(x.dtype).tiny)
    share = (x - low) / gap
    if draw is None:
        return torch.where(share > 0.5, high, low)
    return torch.where(torch.rand(x.shape, generator=draw, device=x.device, dtype=x.dtype) < share, high, low)


def to_whole(x: torch.Tensor, draw: torch.Generator | None) -> torch.Tensor:
    """Return whole numbers: the nearest, halves to the even one; with a generator the next higher with probability x - floor(x)."""
    if draw is None:
        return x.round()
    low = x.floor()
    # a sum floor(x + noise) would be rounded itself and no longer be right on average
    return low + (torch.rand(x.shape, generator=draw, device=x.device, dtype=x.dtype) < x - low)


def power_of_two(exponent: torch.Tensor) -> torch.Tensor:
    """Return 2^exponent in single precision, exactly; whole exponents from -126 to 127."""
    return ((exponent.to(torch.int32) + 127) << 23).view(torch.float32)


def exponent_of(x: torch.Tensor) -> torch.Tensor:
    """Return the whole e with 2^e <= |x| < 2^(e + 1); -1 for zeros."""
    return torch.frexp(x)[1] - 1
