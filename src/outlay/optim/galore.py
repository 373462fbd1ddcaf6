"""GaLore: Adam in the subspace of the gradient's leading singular vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.formats.base import Format
from outlay.inner_rules.adam import Adam
from outlay.optim.subspace import FULL, Composed, Subspace
from outlay.projectors.base import Projector
from outlay.projectors.svd import Svd
from outlay.residuals.drop import Drop


@dataclass(frozen=True)
class GaLore(Composed):
    """For each matrix W with gradient G, its longer side as rows, at step t = 1, 2, ...:

        every ``period`` steps:  P = leading ``rank`` right singular vectors of G, as rows
        R = G P^T,  m <- beta1 m + (1 - beta1) R,  v <- beta2 v + (1 - beta2) R^2,  N = m / (sqrt(v) + eps)
        W <- W - lr sqrt(1 - beta2^t) / (1 - beta1^t) scale N P,  then W <- W - lr weight_decay W

    The moments are kept as they are when P changes. With ``rank`` the shorter side this is Adam in rotated coordinates, which is not Adam.
    Embeddings, output layers and everything that is not a matrix follow Adam. Kept: P, (rank, columns), and two moments, (rows, rank).

    Args:
        rank: directions kept, >= 1.
        period: steps between new subspaces, >= 1; None to choose once.
        scale: learning rate of projected matrices relative to all others', > 0.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator, > 0.
        projector: what chooses the subspace instead of the singular vectors; it has its own rank.
        states: how moments are kept, such as ``dynamic8``; None for the parameter's type.
        names: parts of names of matrices that follow Adam.
    """

    title: ClassVar[str] = "GaLore"
    paper: ClassVar[Paper | None] = Paper("2403.03507", "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection", 2024)

    rank: int = 128
    period: int | None = 200
    scale: float = 0.25
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    projector: Projector | None = None
    states: Format | None = None
    names: tuple[str, ...] = FULL

    def __post_init__(self) -> None:
        self.composed()

    def composed(self) -> Subspace:
        """svd + adam + drop."""
        adam = Adam(self.beta1, self.beta2, self.eps, late_eps=True, states=self.states)
        projector = self.projector or Svd(self.rank)
        return Subspace(projector, adam, Drop(self.scale), self.period, "keep", "after", full=adam, names=self.names)


def reference_galore(w: torch.Tensor, gradients: list[torch.Tensor], spec: GaLore, lr: float, decay: float = 0.0) -> torch.Tensor:
    """Return W after a step for each gradient, a formula a line; W and gradients are (rows, columns) with rows >= columns."""
    m = v = torch.zeros(w.shape[0], min(spec.rank, w.shape[1]), dtype=w.dtype)
    for t, g in enumerate(gradients, 1):
        if t == 1 or (spec.period and (t - 1) % spec.period == 0):
            p = torch.linalg.svd(g, full_matrices=False).Vh[: spec.rank]
        r = g @ p.T
        m = spec.beta1 * m + (1 - spec.beta1) * r
        v = spec.beta2 * v + (1 - spec.beta2) * r**2
        n = m / (v.sqrt() + spec.eps)
        w = w - lr * (1 - spec.beta2**t) ** 0.5 / (1 - spec.beta1**t) * spec.scale * n @ p
        w = w - lr * decay * w
    return w
