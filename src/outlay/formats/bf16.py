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
        noise = torch.randint(0, 1 << 16, whole.shape, generator=draw, device=whole.device, dtype=torch.int32)
        cut = (whole.view(torch.int32) + noise) & -65536
        # neither infinities nor nans may turn into something else
        return {"values": torch.where(whole.isfinite(), cut.view(torch.float32), whole).to(torch.bfloat16)}

    def decode(self, kept: Mapping[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        """Return the values in single precision."""
        return kept["values"].to(torch.float32)
