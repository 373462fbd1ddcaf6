"""Adam: a mean gradient over the root of a mean square."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.formats.base import Format
from outlay.inner_rules.base import Direction
from outlay.inner_rules.moments import Rounding, moment_layout, read_moment, rounding_stream, write_moment
from outlay.layout import Layout, Shape, State


@dataclass(frozen=True)
class Adam:
    """m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g^2; raw = m / (sqrt(v) + e), factor = sqrt(1 - beta2^t) / (1 - beta1^t).

    With e = eps sqrt(1 - beta2^t) the step is torch's, m_hat / (sqrt(v_hat) + eps); with e = eps (``late_eps``) eps counts more in the first
    steps, as in the implementations that GaLore, Fira and APOLLO came with.

    Args:
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator, > 0.
        late_eps: add eps before the correction for the start.
        bias_correction: whether factor corrects for the start; else it is 1.
        states: how both moments are kept; None for the parameter's type.
        second: how the second moment is kept where that differs.
        rounding: of moments in a format: to ``nearest``, which loses changes below half a step (for bfloat16 a second moment stalls as soon as
            (1 - beta2) |g^2 / v - 1| < 2^-9), or ``stochastic``, right on average.
    """

    title: ClassVar[str] = "Adam"
    paper: ClassVar[Paper | None] = Paper("1412.6980", "Adam: A Method for Stochastic Optimization", 2014)
    elementwise: ClassVar[bool] = True

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    late_eps: bool = False
    bias_correction: bool = True
    states: Format | None = None
    second: Format | None = None
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError(f"beta1 and beta2 must lie in [0, 1), found {self.beta1} and {self.beta2}")
        if self.eps <= 0:
            raise ValueError(f"eps must be > 0, found {self.eps}")

    def _formats(self) -> tuple[Format | None, Format | None]:
        return self.states, self.second or self.states

    def layout(self, shape: Shape) -> Layout:
        """Two moments."""
        first, second = self._formats()
        return moment_layout("m", first, shape) | moment_layout("v", second, shape)

    def direction(self, state: State, g: torch.Tensor, step: int) -> Direction:
        """Update the moments and return their quotient."""
        first, second = self._formats()
        m, v = read_moment(state, "m", first, tuple(g.shape)), read_moment(state, "v", second, tuple(g.shape))
        m.lerp_(g.to(m.dtype), 1.0 - self.beta1)
        v.mul_(self.beta2).addcmul_(g.to(v.dtype), g.to(v.dtype), value=1.0 - self.beta2)
        write_moment(state, "m", first, m, rounding_stream(self.rounding, "m", step, m))
        write_moment(state, "v", second, v, rounding_stream(self.rounding, "v", step, v))
        one, two = (1.0 - self.beta1**step, math.sqrt(1.0 - self.beta2**step)) if self.bias_correction else (1.0, 1.0)
        raw = v.sqrt().add_(self.eps * (1.0 if self.late_eps else two)).reciprocal_().mul_(m)
        return Direction(raw.to(g.dtype), two / one)

    def rotate(self, state: State, turn: torch.Tensor, shape: Shape) -> None:
        """m <- m T, v <- |v T|, rounded to nearest."""
        for name, form in zip(("m", "v"), self._formats(), strict=True):
            moment = read_moment(state, name, form, shape)
            turned = moment @ turn.to(moment.dtype)
            moment.copy_(turned.abs() if name == "v" else turned)
            write_moment(state, name, form, moment)
