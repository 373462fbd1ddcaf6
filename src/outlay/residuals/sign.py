"""Signs: the residual is stepped along by its signs alone, which takes no state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.layout import Layout, Shape, State
from outlay.residuals.base import Split
from outlay.residuals.parts import length, remainder


@dataclass(frozen=True)
class Sign:
    """update = scale (factor up(N) + inactive_scale sign(E)),  E = G - up(R).

    The inner rule's factor, which corrects for the start of its moments, does not touch the signs. Where the gradient lies in the subspace E is
    what rounding leaves of it, whose signs mean nothing: an E no longer than 4 units of rounding of G counts as zero. Not so where up(R) and E
    have no element in common, as with columns and entries: such an E is exact, however small.

    Args:
        scale: learning rate of projected matrices relative to all others', > 0.
        inactive_scale: learning rate of the signs relative to that of the projected part, >= 0.
    """

    title: ClassVar[str] = "Signs of the residual"
    paper: ClassVar[Paper | None] = Paper(
        "2411.07837", "FRUGAL: Memory-Efficient Optimization by Reducing State Overhead for Scalable Training", 2024
    )

    scale: float = 1.0
    inactive_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale must be > 0, found {self.scale}")
        if self.inactive_scale < 0:
            raise ValueError(f"inactive_scale must be >= 0, found {self.inactive_scale}")

    def layout(self, shape: Shape) -> Layout:
        """Nothing is kept."""
        return {}

    def prepare(self, state: State, g: torch.Tensor) -> torch.Tensor:
        """Return ``g``."""
        return g

    def update(self, state: State, split: Split) -> torch.Tensor:
        """Return the lifted direction and the residual's signs."""
        e = remainder(split)
        exact = ~((e != 0) & (e != split.gradient)).any()
        means = exact | (length(e) > 4 * torch.finfo(e.dtype).eps * length(split.gradient))
        signs = e.sign_().mul_(self.scale * self.inactive_scale * means)
        return signs.add_(split.lift(split.direction.raw), alpha=self.scale * split.direction.factor)
