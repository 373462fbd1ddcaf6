"""bfloat16: single precision's range in 16 bits, with 8 bits of significand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.layout import Layout, Shape, Slot


@dataclass(frozen=True)
class Bf16:
    """The upper half of single precision: 1 sign, 8 exponent and 7 significand bits; relative error at most 2^-8 when rounded to nearest.

    Written without a generator, a change below 2^-9 of a value is lost; stochastic rounding keeps it on average.
    """

    title: ClassVar[str] = "bfloat16"
    paper: ClassVar[Paper | None] = Paper(
        "2505.01043", "Low-Precision Training of Large Language Models: Methods, Challenges, and Opportunities", 2025
    )

    def layout(self, shape: Shape) -> Layout:
        """Two bytes an element."""
        return {"values": Slot(shape, torch.bfloat16)}

    def encode(self, x: torch.Tensor, draw: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """Return the rounded values. Stochastic rounding adds 16 random bits below the last kept one and cuts."""
        if draw is None:
            return {"values": x.to(torch.bfloat16)}
        whole = x.to(torch.float32).contiguous()
        bits = whole.view(torch.int32)
        cut = _sixteen_bits(whole, draw).add_(bits).bitwise_and_(-65536)
        # neither infinities nor nans may turn into something else
        special = bits.bitwise_and(_EXPONENT) == _EXPONENT
        return {"values": torch.where(special, whole, cut.view(torch.float32)).to(torch.bfloat16)}

    def decode(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        """Return the values in single precision."""
        return kept["values"].to(torch.float32)


#: the exponent's bits: all are set in infinities and nans
_EXPONENT = 0x7F800000


def _sixteen_bits(like: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Return whole numbers from 0 to 2^16 - 1 in the shape of ``like``: four of every 64 random bits."""
    count = like.numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=like.device).random_(-(2**63), None, generator=draw)
    return words.view(torch.int16)[:count].to(torch.int32).bitwise_and_(0xFFFF).view(like.shape)
