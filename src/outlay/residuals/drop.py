"""Dropping: what the projection leaves is lost until the next subspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.layout import Layout, Shape, State
from outlay.residuals.base import Split


@dataclass(frozen=True)
class Drop:
    """update = scale factor up(N), N the inner rule's direction.

    Args:
        scale: learning rate of projected matrices relative to all others', > 0.
    """

    title: ClassVar[str] = "Residual dropped"
    paper: ClassVar[Paper | None] = Paper("2403.03507", "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection", 2024)

    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale must be > 0, found {self.scale}")

    def layout(self, shape: Shape) -> Layout:
        """Nothing is kept."""
        return {}

    def prepare(self, state: State, g: torch.Tensor) -> torch.Tensor:
        """Return ``g``."""
        return g

    def update(self, state: State, split: Split) -> torch.Tensor:
        """Return the lifted direction alone."""
        return split.lift(split.direction.raw).mul_(self.scale * split.direction.factor)
