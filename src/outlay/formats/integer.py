"""Integers with a scale: evenly spaced values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.formats.base import to_whole
from outlay.formats.groups import Scaling, check_block, groups_of, largest, pack, packed_bytes, short_scale, unpack
from outlay.layout import Layout, Shape, Slot

#: significand of the scales: with 8 bits of a code it makes the 24 of single precision
SCALE_BITS = 16


@dataclass(frozen=True)
class Integer:
    """x = s k with whole k: -L <= k <= L, L = 2^(bits - 1) - 1, when symmetric; else -z <= k <= N - z, N = 2^bits - 1, with a zero point z a group.

    s is the smallest step that reaches all elements of the group: max |x| / L, or the least over z of max(-min x / z, max x / (N - z)), where min
    and max take in 0; rounded up by a factor below 1 + 2^-15, and at least 2^-100. No element is cut off, so with s so chosen the error is at most
    s / 2 to nearest and below s when rounded stochastically: max |x| / (2 L) a symmetric group, (max - min) / (2 (N - 1)) an asymmetric one, both
    times 1 + 2^-14. A group with an element that is not finite decodes to nan; elements must stay below 2^127.

    Args:
        bits: of a code, from 2 to 8.
        symmetric: whether values lie evenly about 0.
        scaling: what shares a scale: the whole ``tensor``; a ``row``, all along the last axis (a linear layer's output channel); or a ``block`` of
            elements in a row in memory.
        block: elements of a block, >= 1.
    """

    title: ClassVar[str] = "Integers with a scale"
    paper: ClassVar[Paper | None] = Paper(
        "1712.05877", "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2017
    )

    bits: int = 8
    symmetric: bool = True
    scaling: Scaling = "row"
    block: int = 128

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits must lie in [2, 8], found {self.bits}")
        check_block(self.block)

    def layout(self, shape: Shape) -> Layout:
        """Codes end to end, a scale of 4 bytes a group, and a zero point of a byte when asymmetric."""
        groups = groups_of(shape, self.scaling, self.block)
        kept = {"codes": Slot((packed_bytes(math.prod(shape), self.bits),), torch.uint8), "scales": Slot((groups.count,), torch.float32)}
        return kept if self.symmetric else kept | {"zeros": Slot((groups.count,), torch.uint8)}

    def encode(self, x: torch.Tensor, draw: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """Return codes and scales."""
        shape = tuple(x.shape)
        groups = groups_of(shape, self.scaling, self.block)
        parts = groups.split(x)
        if self.symmetric:
            top = 2 ** (self.bits - 1) - 1
            scale, zero = short_scale(largest(parts) / top, SCALE_BITS), None
            whole = to_whole(parts / scale, draw).nan_to_num(0.0).clamp(-top, top)
        else:
            scale, zero = self._affine(parts, draw is not None)
            whole = (to_whole(parts / scale, draw).nan_to_num(0.0) + zero).clamp(0, 2**self.bits - 1)
        codes = groups.join(whole, shape).to(torch.int64) & (2**self.bits - 1)
        kept = {"codes": pack(codes, self.bits), "scales": scale.reshape(-1)}
        return kept if zero is None else kept | {"zeros": zero.reshape(-1).to(torch.uint8)}

    def _affine(self, parts: torch.Tensor, wide: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scales and zero points, (groups, 1) each. ``wide``: the grid begins at or below the least element, not at its nearest value."""
        top = 2**self.bits - 1
        ends = parts if len(parts) else parts.new_zeros((0, 1))
        below, above = (-ends).amax(dim=1, keepdim=True).clamp_min(0), ends.amax(dim=1, keepdim=True).clamp_min(0)
        if not wide:
            # an end within half a step of 0 becomes 0; a code of its own would stay unused
            least = (1 + 2**-14) / (2 * (top - 1))
            below, above = torch.where(below <= above * least, 0.0, below), torch.where(above <= below * least, 0.0, above)
        ideal = (top * (below / (below + above).clamp_min(torch.finfo(torch.float32).tiny))).floor()
        # the best whole zero point is one of the two beside the ideal one
        trials = torch.stack([ideal, ideal + 1]).clamp(0, top)
        reach = torch.maximum(_over(below, trials), _over(above, top - trials))
        best = reach.argmin(dim=0, keepdim=True)
        scale = short_scale(reach.gather(0, best)[0], SCALE_BITS)
        lower = -below / scale
        zero = torch.minimum(-(lower.floor() if wide else lower.round()), trials.gather(0, best)[0])
        return scale, zero.nan_to_num(0.0)

    def decode(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        """Return codes times scales."""
        codes = unpack(kept["codes"], self.bits, math.prod(shape))
        groups = groups_of(shape, self.scaling, self.block)
        if self.symmetric:
            half = 2 ** (self.bits - 1)
            steps = groups.split((codes + half) % (2 * half) - half)
        else:
            steps = groups.split(codes) - kept["zeros"].reshape(-1, 1).to(torch.float32)
        return groups.join(steps * kept["scales"].reshape(-1, 1), shape)

    def values(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        """Return every code's value at the kept scales; symmetric ones leave the lowest code unused."""
        unused = 2 ** (self.bits - 1) if self.symmetric else -1
        every = [torch.full(shape, code, dtype=torch.int64, device=kept["codes"].device) for code in range(2**self.bits) if code != unused]
        return torch.stack([self.decode({**kept, "codes": pack(codes, self.bits)}, shape) for codes in every])


def _over(distance: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Return distance / steps; 0 where there is no distance, even without steps. What is not finite stays so."""
    return torch.where(distance == 0, 0.0, distance / steps)
