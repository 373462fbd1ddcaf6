"""Scaling by norms: the residual follows as strongly as the inner rule amplified the projected part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.layout import Layout, Shape, State
from outlay.residuals.base import Split
from outlay.residuals.limiter import GAMMA, check_gamma, limited, limiter_layout
from outlay.residuals.parts import Granularity, amplification, remainder


@dataclass(frozen=True)
class NormScaled:
    """update = factor (scale up(N) + C),  C = phi (G - up(R)),  phi = ||N|| / (||R|| + 1e-8), limited so that ||C_t|| <= gamma ||C_t-1||.

    phi is one number a row (of the longer side, for projectors that turn matrices so), or one of the whole matrix. The published code lifts
    with ``scale`` everywhere and so leaves G - scale up(R) as the residual; the equation, and the default here, is the whole of G - up(R).

    Args:
        scale: learning rate of the projected part relative to all others', > 0.
        gamma: how much longer C may be than at the step before, >= 1; None for no limit.
        granularity: a phi for each ``channel`` (row), or one for the ``tensor``.
        exact: whether the residual is G - up(R); else G - scale up(R).
    """

    title: ClassVar[str] = "Residual scaled by norms"
    paper: ClassVar[Paper | None] = Paper("2410.01623", "Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank Constraint?", 2024)

    scale: float = 1.0
    gamma: float | None = GAMMA
    granularity: Granularity = "channel"
    exact: bool = True

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
        """Return the lifted direction and the limited residual."""
        phi = amplification(split, self.granularity)
        c = remainder(split, 1.0 if self.exact else self.scale).mul_(phi.to(split.gradient.dtype))
        c = limited(state, c, self.gamma, beside=split.direction.raw)
        return c.add_(split.lift(split.direction.raw), alpha=self.scale).mul_(split.direction.factor)
