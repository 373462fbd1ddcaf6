"""Lion: the sign of a mean gradient in which the last one counts more than in what is kept."""

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
class Lion:
    """raw = sign(beta1 m + (1 - beta1) g), then m <- beta2 m + (1 - beta2) g.

    Args:
        beta1: weight of the mean in the direction, in [0, 1).
        beta2: decay of the mean, in [0, 1).
        states: how the mean is kept; None for the parameter's type.
    """

    title: ClassVar[str] = "Lion"
    paper: ClassVar[Paper | None] = Paper("2302.06675", "Symbolic Discovery of Optimization Algorithms", 2023)
    elementwise: ClassVar[bool] = True

    beta1: float = 0.9
    beta2: float = 0.99
    states: Format | None = None

    def __post_init__(self) -> None:
        check_decay("beta1", self.beta1)
        check_decay("beta2", self.beta2)

    def layout(self, shape: Shape) -> Layout:
        """A mean gradient."""
        return moment_layout("m", self.states, shape)

    def direction(self, state: State, g: torch.Tensor, step: int) -> Direction:
        """Return the sign, then update the mean."""
        m = read_moment(state, "m", self.states, tuple(g.shape))
        raw = m.lerp(g.to(m.dtype), 1.0 - self.beta1).sign_()
        m.lerp_(g.to(m.dtype), 1.0 - self.beta2)
        write_moment(state, "m", self.states, m)
        return Direction(raw.to(g.dtype))

    def rotate(self, state: State, turn: torch.Tensor, shape: Shape) -> None:
        """m <- m T."""
        turn_moment(state, "m", self.states, turn, shape)
