"""Scaling channels: the gradient as it is, each channel as long as the inner rule makes its sketch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.layout import Layout, Shape, State
from outlay.residuals.base import Split
from outlay.residuals.limiter import GAMMA, check_gamma, limited, limiter_layout
from outlay.residuals.parts import Granularity, amplification


@dataclass(frozen=True)
class ChannelScaled:
    """update = factor sqrt(scale) C,  C = s G,  s = ||N|| / (||R|| + 1e-8), limited so that ||C_t|| <= gamma ||C_t-1||.

    Nothing is lifted: R, a sketch of the gradient, only tells how much an adaptive rule would amplify it. A sketch of rank r shortens s by
    about sqrt(r / columns), which ``scale`` = columns / r undoes.

    Args:
        granularity: a factor s for each ``channel`` (row), or one for the ``tensor``.
        scale: its root multiplies the update, > 0.
        scale_first: multiply by the root of scale before the limiter, not after it. Since the limiter compares lengths the order changes nothing
            but which first lengths count as none.
        gamma: how much longer C may be than at the step before, >= 1; None for no limit.
    """

    title: ClassVar[str] = "Channel-wise scaled gradient"
    paper: ClassVar[Paper | None] = Paper("2412.05270", "APOLLO: SGD-like Memory, AdamW-level Performance", 2024)

    granularity: Granularity = "channel"
    scale: float = 1.0
    scale_first: bool = False
    gamma: float | None = GAMMA

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale must be > 0, found {self.scale}")
        check_gamma(self.gamma)

    def layout(self, shape: Shape) -> Layout:
        """The limiter's length."""
        return limiter_layout(self.gamma)

    def prepare(self, state: State, g: torch.Tensor) -> torch.Tensor:
        """Return ``g``."""
        return g

    def update(self, state: State, split: Split) -> torch.Tensor:
        """Return the scaled gradient."""
        before, after = (math.sqrt(self.scale), 1.0) if self.scale_first else (1.0, math.sqrt(self.scale))
        s = amplification(split, self.granularity) * before
        scaled = split.gradient * s.to(split.gradient.dtype)
        return limited(state, scaled, self.gamma, beside=split.direction.raw, times=after * split.direction.factor)
