"""Gradient descent, with or without momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.formats.base import Format
from outlay.inner_rules.base import Direction
from outlay.inner_rules.moments import check_decay, moment_layout, read_moment, turn_moment, write_moment
from outlay.layout import Layout, Shape, State


@dataclass(frozen=True)
class Sgd:
    """b <- momentum b + g, raw = b, or g + momentum b with ``nesterov``: torch's convention, in which momentum makes steps longer.

    Args:
        momentum: decay of the running sum, in [0, 1); at 0 nothing is kept and raw = g.
        nesterov: look ahead by one decay; needs momentum.
        states: how the sum is kept; None for the parameter's type.
    """

    title: ClassVar[str] = "Gradient descent"
    paper: ClassVar[Paper | None] = None
    elementwise: ClassVar[bool] = True

    momentum: float = 0.0
    nesterov: bool = False
    states: Format | None = None

    def __post_init__(self) -> None:
        check_decay("momentum", self.momentum)
        if self.nesterov and not self.momentum:
            raise ValueError("momentum must be > 0 with nesterov, found 0")

    def layout(self, shape: Shape) -> Layout:
        """The running sum, where there is momentum."""
        return moment_layout("b", self.states, shape) if self.momentum else {}

    def direction(self, state: State, g: torch.Tensor, step: int) -> Direction:
        """Update the sum and return it."""
        if not self.momentum:
            return Direction(g.clone())
        b = read_moment(state, "b", self.states, tuple(g.shape))
        b.mul_(self.momentum).add_(g.to(b.dtype))
        raw = b.mul(self.momentum).add_(g.to(b.dtype)) if self.nesterov else b.clone()
        write_moment(state, "b", self.states, b)
        return Direction(raw.to(g.dtype))

    def rotate(self, state: State, turn: torch.Tensor, shape: Shape) -> None:
        """b <- b T."""
        if self.momentum:
            turn_moment(state, "b", self.states, turn, shape)
