"""Natural GaLore: GaLore whose projected gradient is measured by the last ones before Adam takes it in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.formats.base import Format
from outlay.inner_rules.adam import Adam
from outlay.inner_rules.natural import Natural
from outlay.optim.subspace import FULL, Composed, Subspace
from outlay.projectors.base import Projector
from outlay.projectors.svd import Svd
from outlay.residuals.drop import Drop


@dataclass(frozen=True)
class NaturalGaLore(Composed):
    """For each matrix W with gradient G, its longer side as rows, at step t = 1, 2, ...:

        every ``period`` steps:  P = leading ``rank`` right singular vectors of G, as rows; H is emptied
        R = G P^T,  H = the last ``history`` of these, R among them, flat and as columns
        n = (damping I + H H^T)^-1 R
        m <- beta1 m + (1 - beta1) n,  v <- beta2 v + (1 - beta2) n^2,  N = m / (sqrt(v) + eps)
        W <- W - lr sqrt(1 - beta2^t) / (1 - beta1^t) scale N P,  then W <- W - lr weight_decay W

    Kept: P, two moments of (rows, rank) and the history: as much as ``history`` moments more, which the published account of its memory leaves
    out. The published code projects both sides of a matrix and keeps old coordinates in H at a new P; the equation is one-sided and H is not
    mixed here. Embeddings, output layers and everything that is not a matrix follow Adam.

    Args:
        rank: directions kept, >= 1.
        period: steps between new subspaces, >= 1; None to choose once.
        scale: learning rate of projected matrices relative to all others', > 0.
        history: projected gradients kept, >= 1.
        damping: added to the diagonal, > 0. It is to be of the size of the squared length of a matrix's projected gradient; far below it, equal
            gradients are divided by their number and steps fade while the history fills.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator, > 0.
        projector: what chooses the subspace instead of the singular vectors; it has its own rank.
        states: how moments are kept, such as ``dynamic8``; None for the parameter's type.
        names: parts of names of matrices that follow Adam.
    """

    title: ClassVar[str] = "Natural GaLore"
    paper: ClassVar[Paper | None] = Paper(
        "2410.16029", "Natural GaLore: Accelerating GaLore for memory-efficient LLM Training and Fine-tuning", 2024
    )

    rank: int = 128
    period: int | None = 200
    scale: float = 0.25
    history: int = 20
    damping: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    projector: Projector | None = None
    states: Format | None = None
    names: tuple[str, ...] = FULL

    def __post_init__(self) -> None:
        self.composed()

    def composed(self) -> Subspace:
        """svd + natural + drop."""
        adam = Adam(self.beta1, self.beta2, self.eps, late_eps=True, states=self.states)
        inner = Natural(self.history, self.damping, adam)
        return Subspace(
            self.projector or Svd(self.rank), inner, Drop(self.scale), self.period, "keep", "after", full=adam, names=self.names
        )


def reference_natural_galore(
    w: torch.Tensor, gradients: list[torch.Tensor], spec: NaturalGaLore, lr: float, decay: float = 0.0
) -> torch.Tensor:
    """Return W after a step for each gradient, a formula a line; W and gradients are (rows, columns) with rows >= columns."""
    m = v = torch.zeros(w.shape[0], min(spec.rank, w.shape[1]), dtype=w.dtype)
    last: list[torch.Tensor] = []
    for t, g in enumerate(gradients, 1):
        if t == 1 or (spec.period and (t - 1) % spec.period == 0):
            p, last = torch.linalg.svd(g, full_matrices=False).Vh[: spec.rank], []
        r = g @ p.T
        last = [*last, r.flatten()][-spec.history :]
        h = torch.stack(last, 1)
        n = torch.linalg.solve(spec.damping * torch.eye(len(h), dtype=w.dtype) + h @ h.T, r.flatten()).view_as(r)
        m = spec.beta1 * m + (1 - spec.beta1) * n
        v = spec.beta2 * v + (1 - spec.beta2) * n**2
        w = w - lr * (1 - spec.beta2**t) ** 0.5 / (1 - spec.beta1**t) * spec.scale * m / (v.sqrt() + spec.eps) @ p
        w = w - lr * decay * w
    return w
