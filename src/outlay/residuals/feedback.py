"""Error feedback: what the projection leaves is added to the next gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.formats.base import Format
from outlay.inner_rules.moments import moment_layout, read_moment, write_moment
from outlay.layout import Layout, Shape, State
from outlay.residuals.base import Split
from outlay.residuals.parts import remainder


@dataclass(frozen=True)
class Feedback:
    """A = G + E is projected in place of G;  update = scale factor up(N);  E <- A - up(R),  E = 0 at first.

    Nothing of a gradient is lost, it only comes later. E is as large as the matrix, half of what Adam keeps for it without a projection, unless
    it is kept in few bits.

    Args:
        scale: learning rate of projected matrices relative to all others', > 0.
        states: how E is kept; None for the parameter's type.
    """

    title: ClassVar[str] = "Error feedback"
    paper: ClassVar[Paper | None] = Paper(
        "2505.17967", "FFT-based Dynamic Subspace Selection for Low-Rank Adaptive Optimization of Large Language Models", 2025
    )

    scale: float = 1.0
    states: Format | None = None

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale must be > 0, found {self.scale}")

    def layout(self, shape: Shape) -> Layout:
        """E, full size."""
        return moment_layout("error", self.states, shape)

    def prepare(self, state: State, g: torch.Tensor) -> torch.Tensor:
        """Return G + E."""
        return g + read_moment(state, "error", self.states, tuple(g.shape)).to(g.dtype)

    def update(self, state: State, split: Split) -> torch.Tensor:
        """Keep what the projection leaves and return the lifted direction."""
        left = remainder(split)
        if self.states is None:
            state["error"] = left
        else:
            write_moment(state, "error", self.states, left)
        return split.lift(split.direction.raw).mul_(self.scale * split.direction.factor)
