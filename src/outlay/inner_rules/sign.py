"""Sign descent: every element moves by the learning rate."""

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
class Sign:
    """raw = sign(g), or, with momentum (Signum), m <- momentum m + (1 - momentum) g, raw = sign(m). Zero has the sign 0.

    Args:
        momentum: decay of the mean gradient, in [0, 1); at 0 nothing is kept.
        states: how the mean is kept; None for the parameter's type.
    """

    title: ClassVar[str] = "Sign descent"
    paper: ClassVar[Paper | None] = Paper("1802.04434", "signSGD: Compressed Optimisation for Non-Convex Problems", 2018)
    elementwise: ClassVar[bool] = True

    momentum: float = 0.0
    states: Format | None = None

    def __post_init__(self) -> None:
        check_decay("momentum", self.momentum)

    def layout(self, shape: Shape) -> Layout:
        """The mean gradient, where there is momentum."""
        return moment_layout("m", self.states, shape) if self.momentum else {}

    def direction(self, state: State, g: torch.Tensor, step: int) -> Direction:
        """Return the sign."""
        if not self.momentum:
            return Direction(g.sign())
        m = read_moment(state, "m", self.states, tuple(g.shape))
        m.lerp_(g.to(m.dtype), 1.0 - self.momentum)
        write_moment(state, "m", self.states, m)
        return Direction(m.sign().to(g.dtype))

    def rotate(self, state: State, turn: torch.Tensor, shape: Shape) -> None:
        """m <- m T."""
        if self.momentum:
            turn_moment(state, "m", self.states, turn, shape)
