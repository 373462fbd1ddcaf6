"""APOLLO: the gradient as it is, scaled by what Adam would make of a random sketch of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.formats.base import Format
from outlay.inner_rules.adam import Adam
from outlay.optim.subspace import FULL, Composed, Subspace
from outlay.projectors.base import Projector
from outlay.projectors.gaussian import Gaussian
from outlay.residuals.channel_scaled import ChannelScaled
from outlay.residuals.limiter import GAMMA
from outlay.residuals.parts import Granularity


@dataclass(frozen=True)
class Apollo(Composed):
    """For each matrix W with gradient G, its longer side as rows, at step t = 1, 2, ...:

        every ``period`` steps:  P, (rank, columns), of independent N(0, 1) / sqrt(rank)
        R = G P^T,  m <- beta1 m + (1 - beta1) R,  v <- beta2 v + (1 - beta2) R^2,  N = m / (sqrt(v) + eps)
        s_i = ||N_i|| / (||R_i|| + 1e-8) for each row i,  or one s = ||N|| / (||R|| + 1e-8)
        C = s G,  shortened so that ||C_t|| <= gamma ||C_t-1||
        W <- W - lr sqrt(1 - beta2^t) / (1 - beta1^t) sqrt(scale) C,  then W <- W - lr weight_decay W

    The moments are kept when P changes. P is drawn from a stream of the seed and the parameter's name wherever it is used, and not kept. Against
    the published code, a first gradient of zero does not shut the limiter; pytorch_optimizer's version scales and lifts R, where the equation
    scales G. Embeddings, output layers and everything that is not a matrix follow Adam. Kept: two moments, (rows, rank), and one length.

    Args:
        rank: rows of P, >= 1; about a quarter of the shorter side.
        period: steps between new sketches, >= 1; None to draw once.
        scale: its root multiplies the update, > 0; columns / rank undoes what the sketch takes from s.
        granularity: a factor s for each ``channel`` (row), or one for the ``tensor``.
        scale_first: multiply by the root of scale before the limiter, not after it.
        gamma: how much longer C may be than at the step before, >= 1; None for no limit.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator, > 0.
        projector: what sketches instead, such as the singular vectors; it has its own rank.
        states: how moments are kept, such as ``dynamic8``; None for the parameter's type.
        names: parts of names of matrices that follow Adam.
    """

    title: ClassVar[str] = "APOLLO"
    paper: ClassVar[Paper | None] = Paper("2412.05270", "APOLLO: SGD-like Memory, AdamW-level Performance", 2024)

    rank: int = 256
    period: int | None = 200
    scale: float = 1.0
    granularity: Granularity = "channel"
    scale_first: bool = False
    gamma: float | None = GAMMA
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    projector: Projector | None = None
    states: Format | None = None
    names: tuple[str, ...] = FULL

    def __post_init__(self) -> None:
        self.composed()

    def composed(self) -> Subspace:
        """gaussian + adam + channel_scaled."""
        adam = Adam(self.beta1, self.beta2, self.eps, late_eps=True, states=self.states)
        residual = ChannelScaled(self.granularity, self.scale, self.scale_first, self.gamma)
        return Subspace(self.projector or Gaussian(self.rank), adam, residual, self.period, "keep", "after", full=adam, names=self.names)


@dataclass(frozen=True)
class ApolloMini(Apollo):
    """APOLLO with a sketch of rank 1 and one factor a tensor: every step is along the gradient, and the state is two numbers a row.

    Arguments as of ``Apollo``, with other defaults.
    """

    title: ClassVar[str] = "APOLLO-Mini"

    rank: int = 1
    scale: float = 128.0
    granularity: Granularity = "tensor"


def reference_apollo(
    w: torch.Tensor, gradients: list[torch.Tensor], sketches: list[torch.Tensor], spec: Apollo, lr: float, decay: float = 0.0
) -> torch.Tensor:
    """Return W after a step for each gradient, by the sketch P of each; a formula a line. Matrices are (rows, columns) with rows >= columns."""
    m = v = torch.zeros(w.shape[0], len(sketches[0]), dtype=w.dtype)
    before = None
    for t, (g, p) in enumerate(zip(gradients, sketches, strict=True), 1):
        r = g @ p.T
        m = spec.beta1 * m + (1 - spec.beta1) * r
        v = spec.beta2 * v + (1 - spec.beta2) * r**2
        n = m / (v.sqrt() + spec.eps)
        channels = n.norm(dim=1, keepdim=True) / (r.norm(dim=1, keepdim=True) + 1e-8)
        c = g * (channels if spec.granularity == "channel" else n.norm() / (r.norm() + 1e-8))
        if spec.gamma and before is not None and c.norm() > spec.gamma * before:
            c = c / c.norm() * spec.gamma * before
        # the optimizer keeps the length in single precision
        before = c.norm().float().to(w.dtype) if c.norm() > 0 else before
        w = w - lr * (1 - spec.beta2**t) ** 0.5 / (1 - spec.beta1**t) * spec.scale**0.5 * c
        w = w - lr * decay * w
    return w
