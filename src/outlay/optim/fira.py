"""Fira: GaLore whose residual follows, scaled by how much Adam amplified the projected part."""

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
from outlay.residuals.limiter import GAMMA
from outlay.residuals.norm_scaled import NormScaled


@dataclass(frozen=True)
class Fira(Composed):
    """For each matrix W with gradient G, its longer side as rows, at step t = 1, 2, ...:

        R, m, v, N as in GaLore, P chosen every ``period`` steps
        phi_i = ||N_i|| / (||R_i|| + 1e-8) for each row i,  C = phi (G - R P),  shortened so that ||C_t|| <= gamma ||C_t-1||
        W <- W - lr sqrt(1 - beta2^t) / (1 - beta1^t) (scale N P + C),  then W <- W - lr weight_decay W

    Against the published code: the residual is the equation's (``exact``), and a first residual of zero does not shut out all later ones, since
    the limiter begins with the first that is more than rounding. Embeddings, output layers and everything that is not a matrix follow Adam.
    Kept: P, (rank, columns), two moments, (rows, rank), and one length.

    Args:
        rank: directions kept, >= 1.
        period: steps between new subspaces, >= 1; None to choose once.
        scale: learning rate of the projected part relative to all others', > 0.
        gamma: how much longer C may be than at the step before, >= 1; None for no limit.
        exact: whether the residual is G - R P; else G - scale R P.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator, > 0.
        projector: what chooses the subspace instead of the singular vectors; it has its own rank.
        states: how moments are kept, such as ``dynamic8``; None for the parameter's type.
        names: parts of names of matrices that follow Adam.
    """

    title: ClassVar[str] = "Fira"
    paper: ClassVar[Paper | None] = Paper("2410.01623", "Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank Constraint?", 2024)

    rank: int = 128
    period: int | None = 200
    scale: float = 0.25
    gamma: float | None = GAMMA
    exact: bool = True
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    projector: Projector | None = None
    states: Format | None = None
    names: tuple[str, ...] = FULL

    def __post_init__(self) -> None:
        self.composed()

    def composed(self) -> Subspace:
        """svd + adam + norm_scaled."""
        adam = Adam(self.beta1, self.beta2, self.eps, late_eps=True, states=self.states)
        residual = NormScaled(self.scale, self.gamma, exact=self.exact)
        return Subspace(self.projector or Svd(self.rank), adam, residual, self.period, "keep", "after", full=adam, names=self.names)


def reference_fira(w: torch.Tensor, gradients: list[torch.Tensor], spec: Fira, lr: float, decay: float = 0.0) -> torch.Tensor:
    """Return W after a step for each gradient, a formula a line; W and gradients are (rows, columns) with rows >= columns."""
    m = v = torch.zeros(w.shape[0], min(spec.rank, w.shape[1]), dtype=w.dtype)
    before = None
    for t, g in enumerate(gradients, 1):
        if t == 1 or (spec.period and (t - 1) % spec.period == 0):
            p = torch.linalg.svd(g, full_matrices=False).Vh[: spec.rank]
        r = g @ p.T
        m = spec.beta1 * m + (1 - spec.beta1) * r
        v = spec.beta2 * v + (1 - spec.beta2) * r**2
        n = m / (v.sqrt() + spec.eps)
        phi = n.norm(dim=1, keepdim=True) / (r.norm(dim=1, keepdim=True) + 1e-8)
        c = phi * (g - (1.0 if spec.exact else spec.scale) * r @ p)
        if spec.gamma and before is not None and c.norm() > spec.gamma * before:
            c = c / c.norm() * spec.gamma * before
        # the optimizer keeps the length in single precision
        before = c.norm().float().to(w.dtype) if c.norm() > 0 else before
        w = w - lr * (1 - spec.beta2**t) ** 0.5 / (1 - spec.beta1**t) * (spec.scale * n @ p + c)
        w = w - lr * decay * w
    return w
