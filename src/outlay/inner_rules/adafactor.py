"""Adafactor: second moments of a matrix from means of its rows and columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.formats.base import Format
from outlay.inner_rules.base import Direction
from outlay.inner_rules.moments import check_decay, moment_layout, read_moment, write_moment
from outlay.layout import Layout, Shape, Slot, State


@dataclass(frozen=True)
class Adafactor:
    """With b = 1 - t^-decay at step t, and means over the last axis and the one before it:

        R <- b R + (1 - b) mean_columns(g^2 + eps),  C <- b C + (1 - b) mean_rows(g^2 + eps),  V = R C / mean(R)
        U = g / sqrt(V),  U <- U / max(1, rms(U) / clip),  raw = U, or m <- beta1 m + (1 - beta1) U, raw = m

    Vectors and scalars keep V whole: V <- b V + (1 - b) (g^2 + eps). V is exact when the mean of squares has rank one. R, C and V are kept in
    single precision: in fewer bits a b near 1 would leave them as they are. The paper's step relative to the size of the weights is left out, a
    rule not seeing them: the step is ``lr`` raw. torch's Adafactor has that step, no first moment, and eps as a lower bound of the denominator.

    Args:
        decay: exponent of b, > 0.
        clip: most root mean square of U before it is cut, > 0.
        eps: added to squares, > 0.
        beta1: decay of the first moment, in [0, 1); at 0 none is kept.
        states: how the first moment is kept; None for the parameter's type.
    """

    title: ClassVar[str] = "Adafactor"
    paper: ClassVar[Paper | None] = Paper("1804.04235", "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018)
    elementwise: ClassVar[bool] = False

    decay: float = 0.8
    clip: float = 1.0
    eps: float = 1e-30
    beta1: float = 0.0
    states: Format | None = None

    def __post_init__(self) -> None:
        if self.decay <= 0 or self.clip <= 0 or self.eps <= 0:
            raise ValueError(f"decay, clip and eps must be > 0, found {self.decay}, {self.clip} and {self.eps}")
        check_decay("beta1", self.beta1)

    def layout(self, shape: Shape) -> Layout:
        """Means of rows and columns, or V of what has fewer than two axes; and a first moment with beta1."""
        first = moment_layout("m", self.states, shape) if self.beta1 else {}
        if len(shape) < 2:
            return {"v": Slot(shape, torch.float32)} | first
        return {"rows": Slot(shape[:-1], torch.float32), "columns": Slot((*shape[:-2], shape[-1]), torch.float32)} | first

    def direction(self, state: State, g: torch.Tensor, step: int) -> Direction:
        """Update the means and return the gradient over the root of their product."""
        whole = g.to(torch.float32)
        if not g.numel():
            return Direction(g.clone())
        raw = self._scale(state, whole, 1.0 - step**-self.decay).mul_(whole)
        raw.div_((raw.square().mean().sqrt() / self.clip).clamp_min(1.0))
        if self.beta1:
            m = read_moment(state, "m", self.states, tuple(g.shape))
            m.lerp_(raw.to(m.dtype), 1.0 - self.beta1)
            write_moment(state, "m", self.states, m)
            raw = m.clone()
        return Direction(raw.to(g.dtype))

    def _scale(self, state: State, g: torch.Tensor, b: float) -> torch.Tensor:
        """Update the means by a gradient and return 1 / sqrt(V)."""
        square = g.square().add_(self.eps)
        if g.dim() < 2:
            return state["v"].mul_(b).add_(square, alpha=1.0 - b).rsqrt()
        rows, columns = state["rows"], state["columns"]
        rows.mul_(b).add_(square.mean(-1), alpha=1.0 - b)
        columns.mul_(b).add_(square.mean(-2), alpha=1.0 - b)
        # roots before products: eps squared is below what single precision holds
        root = (rows / rows.mean(-1, keepdim=True)).rsqrt()
        return root.unsqueeze(-1) * columns.rsqrt().unsqueeze(-2)
