"""Weights held in a range, instead of gradients cut: truncation and tapering."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.schedules.base import require

Range = tuple[float, float]


@dataclass(frozen=True)
class Truncated:
    """The gradient clip(r, floor, cap) A grad log r: every token keeps teaching, with a weight that is bounded, as in CISPO.

    What is maximised is A w (1 + log r - log w), w = sg(clip(r, floor, cap)), which has that gradient and is r A within the range.

    Args:
        floor: smallest weight, >= 0.
        cap: largest weight, >= floor; the paper leaves its value open, 5 is that of 2510.13786.
    """

    title: ClassVar[str] = "Truncated weights"
    paper: ClassVar[Paper | None] = Paper("2506.13585", "MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention", 2025)

    floor: float = 0.0
    cap: float = 5.0

    def __post_init__(self) -> None:
        _check("floor and cap", (self.floor, self.cap))

    def surrogate(self, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        """Return the weighted objective of every token, (n, T - 1)."""
        return weighted(ratio, ratio.detach().clamp(self.floor, self.cap)) * advantage

    def active(self, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        """Return False where the weight is 0, (n, T - 1)."""
        return ratio.clamp(self.floor, self.cap) > 0


@dataclass(frozen=True)
class Tapered:
    """The gradient clip(r, a, b) A grad log r, with one range for A >= 0 and another for A < 0.

    (1, 1) and (0, 1), the default, is TOPR: good answers are imitated at full weight however unlikely they are by now, bad ones are pushed
    away only as long as they are likely. Others: (1, 1) twice is REINFORCE without correction, (1, 1) and (0, 0) learns from good answers alone, (0, 1)
    twice is truncated and (0, inf) twice full importance sampling. Of a bad answer, r for r <= 1 and 1 + log r beyond is what is minimised.

    Args:
        good: range (a, b) of the weight where A >= 0, 0 <= a <= b.
        bad: range where A < 0.
    """

    title: ClassVar[str] = "Tapered weights"
    paper: ClassVar[Paper | None] = Paper(
        "2503.14286", "Tapered Off-Policy REINFORCE: Stable and efficient reinforcement learning for LLMs", 2025
    )

    good: Range = (1.0, 1.0)
    bad: Range = (0.0, 1.0)

    def __post_init__(self) -> None:
        _check("good", self.good)
        _check("bad", self.bad)

    def surrogate(self, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        """Return the weighted objective of every token, (n, T - 1)."""
        return weighted(ratio, self._weights(ratio, advantage)) * advantage

    def active(self, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        """Return False where the weight is 0, (n, T - 1)."""
        return self._weights(ratio, advantage) > 0

    def _weights(self, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        held = ratio.detach()
        return torch.where(advantage < 0, held.clamp(*self.bad), held.clamp(*self.good))


def weighted(ratio: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return w (1 + log r - log w), whose gradient is w grad log r; the ratio itself where w = r, and 0 where w = 0."""
    return weight * (1 + ratio.log()) - torch.special.xlogy(weight, weight)


def _check(name: str, bounds: Range) -> None:
    low, high = bounds
    require(0 <= low <= high and low < math.inf, f"{name} must satisfy 0 <= low <= high and low < infinity, found {low} and {high}")
