"""Low-rank pre-training with refactorisation: two factors from scratch, balanced and restarted every so often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from outlay.adapters.base import Moment, forget, make_plain, reparametrised, swap
from outlay.adapters.restarting import Restarting, at_least_single, since_restart, uniform
from outlay.catalog import Paper
from outlay.rng import torch_generator

#: share of the learning rate at the first update after a restart
_FLOOR = 0.001


class TwoFactors(Restarting):
    """A linear layer with W = scale B A: A of shape (rank, in), B of shape (out, rank)."""

    def __init__(self, layer: nn.Linear, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = layer.weight.shape
        rank = min(rank, outputs, inputs)
        self.scale = scale
        self.a = uniform((rank, inputs), inputs**-0.5, generator, layer.weight)
        self.b = uniform((outputs, rank), rank**-0.5, generator, layer.weight)
        self.bias = layer.bias

    def effective(self) -> torch.Tensor:
        """Return scale B A."""
        return self.scale * (self.b @ self.a)

    def factors(self) -> tuple[nn.Parameter, ...]:
        """A and B."""
        return self.a, self.b

    @torch.no_grad()
    def refactorise(self) -> None:
        """Replace the factors by B = U sqrt(S), A = sqrt(S) V^T with U S V^T the singular value decomposition of B A, without forming B A."""
        left, right = torch.linalg.qr(at_least_single(self.b)), torch.linalg.qr(at_least_single(self.a.T))
        u, s, vt = torch.linalg.svd(left.R @ right.R.T)
        root = s.sqrt()
        self.b.copy_(left.Q @ u * root)
        self.a.copy_(root[:, None] * (vt @ right.Q.T))


@dataclass(frozen=True)
class LowRank:
    """W = (alpha / rank) B A, both factors drawn from scratch with Kaiming's uniform bounds 1 / sqrt(in) and 1 / sqrt(rank).

    After the updates ``period``, 2 ``period``, ...:

        U S V^T = B A,  B <- U sqrt(S),  A <- sqrt(S) V^T       (the same product; B^T B = A A^T = S)
        the optimizer's state of A and B is dropped

    and update n = 1, 2, ... after that counts for 0.001 + 0.999 (n - 1) / ``recovery`` of itself in A and B until it counts whole, which is
    a learning rate that recovers linearly: the optimizer steps as ever and part of its step is taken back, so no group nor schedule is touched.
    Trained: rank (in + out) floats a matrix in place of in x out; all else of the model stays dense and trained. The paper's period is not
    known; None for the plain low-rank baseline.

    Args:
        rank: columns of B, >= 1; a layer narrower than that takes its width.
        alpha: scale, > 0.
        period: updates between restarts, >= 1; None for no restarts.
        recovery: updates until the learning rate has recovered, >= 0 and below ``period``.
        targets: names of the linear layers; empty for all of them but the output layer.
    """

    title: ClassVar[str] = "Low-rank pre-training with refactorisation and momentum reset"
    paper: ClassVar[Paper | None] = Paper("2505.22922", "Scalable Parameter and Memory Efficient Pretraining for LLM", 2025)

    rank: int = 128
    alpha: float = 32.0
    period: int | None = 1000
    recovery: int = 10
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(f"rank must be >= 1 and alpha > 0, found {self.rank} and {self.alpha}")
        if self.period is not None and self.period < 1:
            raise ValueError(f"period must be >= 1 or None, found {self.period}")
        if self.recovery < 0 or (self.period is not None and self.recovery >= self.period):
            raise ValueError(f"recovery must be >= 0 and below period, found {self.recovery} and {self.period}")

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module with factors drawn from the streams (seed, "adapter/low_rank/" and the layer's name).

        Raises:
            InputError: when no layer is named as ``targets`` say.
        """

        def make(name: str, layer: nn.Linear) -> nn.Module:
            return TwoFactors(layer, self.rank, self.alpha / self.rank, torch_generator(seed, f"adapter/low_rank/{name}"))

        return swap(module, make, self.targets)

    def merge(self, module: nn.Module) -> nn.Module:
        """Return the module with dense linear layers."""
        return make_plain(module)

    def share(self, step: int) -> float:
        """Return how much of its update the factors keep at update ``step``, from 1."""
        count = since_restart(step, self.period)
        if count is None or count > self.recovery:
            return 1.0
        return _FLOOR + (1 - _FLOOR) * (count - 1) / self.recovery

    def before(self, module: nn.Module, moment: Moment) -> None:
        """Copy the factors where part of the update will be taken back."""
        if self.share(moment.step) < 1:
            for layer in _layers(module):
                layer.remember()

    def after(self, module: nn.Module, optimizer: torch.optim.Optimizer, moment: Moment) -> None:
        """Take back what is to be taken back; restart when it is time."""
        share = self.share(moment.step)
        restart = self.period is not None and moment.step % self.period == 0
        for layer in _layers(module):
            if share < 1:
                layer.shorten(share)
            if restart:
                layer.refactorise()
                for factor in layer.factors():
                    forget(optimizer, factor)


def _layers(module: nn.Module) -> list[TwoFactors]:
    return [layer for _, layer in reparametrised(module) if isinstance(layer, TwoFactors)]
