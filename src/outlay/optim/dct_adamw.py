"""DCT-AdamW: Adam along the cosine waves in which each gradient is largest, its moments carried over from choice to choice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from outlay.catalog import Paper
from outlay.formats.base import Format
from outlay.inner_rules.adam import Adam
from outlay.optim.subspace import FULL, Composed, Subspace
from outlay.projectors.dct import Dct
from outlay.residuals.base import Residual
from outlay.residuals.drop import Drop
from outlay.residuals.feedback import Feedback


@dataclass(frozen=True)
class DctAdamW(Composed):
    """For each matrix W with gradient G, its longer side as rows, Q the orthonormal cosine waves of its columns, at step t = 1, 2, ...:

        W <- W - lr weight_decay W;  A = G + E with ``feedback``, else A = G
        every ``period`` steps:  I = the ``rank`` columns of A Q with the greatest norms,
                                 m <- m T, v <- |v T| with T = Q[:, I before]^T Q[:, I]
        R = A Q[:, I],  m <- beta1 m + (1 - beta1) R,  v <- beta2 v + (1 - beta2) R^2
        W <- W - lr m_hat / (sqrt(v_hat) + eps) Q[:, I]^T,  m_hat = m / (1 - beta1^t),  v_hat = v / (1 - beta2^t)
        E <- A - R Q[:, I]^T

    T is a partial permutation: moments of columns that stay are kept and those of new ones begin at zero, while t goes on. Embeddings, output layers
    and everything that is not a matrix follow Adam. Kept: the numbers of ``rank`` columns and two moments, (rows, rank), a matrix; one Q for all
    matrices with as many columns; with ``feedback`` E. The paper names no default for rank and learning rate: they are GaLore's and Adam's.

    Args:
        rank: directions kept, >= 1.
        period: steps between new choices, >= 1; None to choose once.
        score: norm by which columns are chosen.
        fft: compute A Q by fast Fourier transforms when columns are chosen.
        feedback: add what the projection left at one step to the next gradient.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator, > 0.
        states: how moments are kept, such as ``dynamic8``; None for the parameter's type.
        error_states: how E is kept; None for the parameter's type.
        names: parts of names of matrices that follow Adam.
    """

    title: ClassVar[str] = "DCT-AdamW"
    paper: ClassVar[Paper | None] = Paper(
        "2505.17967", "FFT-based Dynamic Subspace Selection for Low-Rank Adaptive Optimization of Large Language Models", 2025
    )
    knobs: ClassVar[dict[str, float]] = {"lr": 1e-3, "weight_decay": 0.0}

    rank: int = 128
    period: int | None = 1
    score: Literal["l1", "l2"] = "l1"
    fft: bool = False
    feedback: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    states: Format | None = None
    error_states: Format | None = None
    names: tuple[str, ...] = FULL

    def __post_init__(self) -> None:
        if self.error_states is not None and not self.feedback:
            raise ValueError("error_states says how the error is kept that is fed back, so feedback must be true, found false")
        self.composed()

    def composed(self) -> Subspace:
        """dct + adam + drop or feedback."""
        adam = Adam(self.beta1, self.beta2, self.eps, states=self.states)
        residual: Residual = Feedback(states=self.error_states) if self.feedback else Drop()
        projector = Dct(self.rank, self.score, self.fft)
        return Subspace(projector, adam, residual, self.period, "rotate", "before", full=adam, names=self.names)


def reference_dct_adamw(w: torch.Tensor, gradients: list[torch.Tensor], spec: DctAdamW, lr: float, decay: float = 0.0) -> torch.Tensor:
    """Return W after a step for each gradient, a formula a line; W and gradients are (rows, columns) with rows >= columns."""
    n, rank = w.shape[1], min(spec.rank, w.shape[1])
    i = torch.arange(n, dtype=w.dtype)
    q = math.sqrt(2 / n) * torch.cos(math.pi * i[:, None] * (2 * i + 1) / (2 * n))
    q[0] = q[0] * math.sqrt(1 / 2)
    m = v = torch.zeros(w.shape[0], rank, dtype=w.dtype)
    e, p = torch.zeros_like(w), torch.zeros(n, rank, dtype=w.dtype)
    for t, g in enumerate(gradients, 1):
        w = w - lr * decay * w
        a = g + e if spec.feedback else g
        if t == 1 or (spec.period and (t - 1) % spec.period == 0):
            score = (a @ q).norm(p=1 if spec.score == "l1" else 2, dim=0)
            before, p = p, q[:, score.topk(rank).indices]
            m, v = m @ (before.T @ p), (v @ (before.T @ p)).abs()
        r = a @ p
        m = spec.beta1 * m + (1 - spec.beta1) * r
        v = spec.beta2 * v + (1 - spec.beta2) * r**2
        m_hat, v_hat = m / (1 - spec.beta1**t), v / (1 - spec.beta2**t)
        w = w - lr * m_hat / (v_hat.sqrt() + spec.eps) @ p.T
        e = a - r @ p.T
    return w
