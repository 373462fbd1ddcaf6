"""FRUGAL: Adam for a share of the gradient's coordinates, signs for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.formats.base import Format
from outlay.inner_rules.adam import Adam
from outlay.optim.subspace import FULL, Composed, Subspace
from outlay.projectors.base import Projector
from outlay.projectors.blocks import Blocks
from outlay.residuals.base import Residual
from outlay.residuals.sign import Sign


@dataclass(frozen=True)
class Frugal(Composed):
    """For each matrix W with gradient G, k = steps since the last choice, from 1:

        every ``period`` steps:  choose the subspace anew;  m = v = 0,  k = 0
        W <- W - lr weight_decay W
        R = down(G),  E = G - up(R)
        m <- beta1 m + (1 - beta1) R,  v <- beta2 v + (1 - beta2) R^2,  N = m_hat / (sqrt(v_hat) + eps), corrected by k
        W <- W - lr scale (up(N) + inactive_scale sign(E))

    The subspace is whole matrices in turn; columns, entries or singular vectors by ``projector``. With ``density`` 1 this is AdamW with restarts,
    with 0 signSGD. Embeddings, output layers and everything that is not a matrix follow Adam throughout. Kept: two moments of the coordinates
    that have their turn.

    Args:
        density: share of the matrices that have moments, in [0, 1]; fewer than half a matrix round to none.
        period: steps between choices, >= 1; None to choose once.
        scale: learning rate of projected matrices relative to all others', > 0.
        inactive_scale: learning rate of the signs relative to that of Adam's part, >= 0; 1 for pre-training, 0.1 for fine-tuning.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator, > 0.
        projector: what chooses instead of whole matrices; it has its own density or rank.
        residual: what becomes of E instead of its signs, such as ``raw`` or ``drop``; it has its own scales.
        states: how moments are kept, such as ``dynamic8``; None for the parameter's type.
        names: parts of names of matrices that follow Adam.
    """

    title: ClassVar[str] = "FRUGAL"
    paper: ClassVar[Paper | None] = Paper(
        "2411.07837", "FRUGAL: Memory-Efficient Optimization by Reducing State Overhead for Scalable Training", 2024
    )
    knobs: ClassVar[dict[str, float]] = {"lr": 1e-3, "weight_decay": 0.0}

    density: float = 0.25
    period: int | None = 200
    scale: float = 1.0
    inactive_scale: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    projector: Projector | None = None
    residual: Residual | None = None
    states: Format | None = None
    names: tuple[str, ...] = FULL

    def __post_init__(self) -> None:
        self.composed()

    def composed(self) -> Subspace:
        """blocks + adam + sign."""
        adam = Adam(self.beta1, self.beta2, self.eps, states=self.states)
        residual = self.residual or Sign(self.scale, self.inactive_scale)
        return Subspace(self.projector or Blocks(self.density), adam, residual, self.period, "reset", "before", full=adam, names=self.names)


def reference_frugal(
    w: torch.Tensor, gradients: list[torch.Tensor], chosen: list[torch.Tensor], spec: Frugal, lr: float, decay: float = 0.0
) -> torch.Tensor:
    """Return W after a step for each gradient, by the coordinates that are active in each, (rows, columns) of 0 and 1; a formula a line."""
    for t, (g, active) in enumerate(zip(gradients, chosen, strict=True)):
        k = (t % spec.period if spec.period else t) + 1
        if k == 1:
            m = v = torch.zeros_like(w)
        w = w * (1 - lr * decay)
        r = g * active
        e = g - r
        m = spec.beta1 * m + (1 - spec.beta1) * r
        v = spec.beta2 * v + (1 - spec.beta2) * r**2
        n = m / (1 - spec.beta1**k) / ((v / (1 - spec.beta2**k)).sqrt() + spec.eps)
        w = w - lr * spec.scale * (n + spec.inactive_scale * e.sign())
    return w
