"""Natural gradients: a gradient measured by the last ones, before another rule takes it in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.inner_rules.adam import Adam
from outlay.inner_rules.base import Direction, InnerRule
from outlay.layout import Layout, Shape, Slot, Slots, State


@dataclass(frozen=True)
class Natural:
    """n = (damping I + H H^T)^-1 g, H = the last ``history`` gradients as columns, g among them; ``then`` takes n in place of g.

    By Woodbury's identity only a matrix of (history, history) is solved: since g = H e, n = H (damping I + H^T H)^-1 e, by Cholesky in double
    precision. (The usual form of the identity, g / damping - H z / damping^2, is the same and loses half its digits to the difference.)

    The gradients kept are ``history`` times one of Adam's moments, and are counted. In new coordinates they mean nothing: they are forgotten
    whenever the subspace is chosen anew, where the published code mixes old and new ones.

    Args:
        history: gradients kept, >= 1.
        damping: added to the diagonal, > 0; where it is large n points along g.
        then: the rule that n is given to.
    """

    title: ClassVar[str] = "Natural gradient of the last gradients"
    paper: ClassVar[Paper | None] = Paper(
        "2410.16029", "Natural GaLore: Accelerating GaLore for memory-efficient LLM Training and Fine-tuning", 2024
    )
    elementwise: ClassVar[bool] = False

    history: int = 20
    damping: float = 1e-3
    then: InnerRule = field(default_factory=Adam)

    def __post_init__(self) -> None:
        if self.history < 1:
            raise ValueError(f"history must be >= 1, found {self.history}")
        if self.damping <= 0:
            raise ValueError(f"damping must be > 0, found {self.damping}")

    def layout(self, shape: Shape) -> Layout:
        """The gradients, and what the other rule keeps."""
        kept = {f"then.{name}": slot for name, slot in self.then.layout(shape).items()}
        return {"gradients": Slot((self.history, math.prod(shape)))} | kept

    def direction(self, state: State, g: torch.Tensor, step: int) -> Direction:
        """Keep the gradient in place of the oldest and hand its natural gradient on. Places not yet taken are zero and count for nothing."""
        place = (step - 1) % self.history
        state["gradients"][place] = g.flatten()
        return self.then.direction(Slots(state, "then."), natural(state["gradients"], place, self.damping).view_as(g), step)

    def clear(self, state: State) -> None:
        """Forget the gradients; what the other rule keeps stays."""
        state["gradients"].zero_()


def natural(gradients: torch.Tensor, place: int, damping: float) -> torch.Tensor:
    """Return (damping I + H H^T)^-1 g for H^T = ``gradients``, (history, elements), and g its row at ``place``."""
    # double precision: damping is far below what single precision leaves of the squares of usual gradients
    rows = gradients.double()
    inner = rows @ rows.T
    inner.diagonal().add_(damping)
    unit = torch.zeros(len(rows), 1, dtype=rows.dtype, device=rows.device)
    unit[place] = 1.0
    weights = torch.cholesky_solve(unit, torch.linalg.cholesky(inner))
    return (weights.T @ rows)[0].to(gradients.dtype)
