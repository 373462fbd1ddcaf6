"""AdaLoRA: singular triplets beside frozen weights, the least important of which are cut as training goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from outlay.adapters.base import Moment, Reparametrised, make_plain, reparametrised, swap
from outlay.allocators.rank import keep_highest
from outlay.arms import FloatArray
from outlay.catalog import Paper
from outlay.rng import torch_generator


@dataclass(frozen=True)
class AdaLora:
    """W' = W + alpha / (r0 + 1e-5) B diag(E) A with A, (r0, in), B, (out, r0) ~ N(0, 0.02^2), E = 0 at the start. After each update, for every
    element p of A, B and E while progress < 1 - final:

        I = |p dL/dp|,  M <- beta1 M + (1 - beta1) I,  U <- beta2 U + (1 - beta2) |I - M|,  s(p) = M U
        score of triplet i = s(E_i) + mean_j s(A_ij) + mean_j s(B_ji)

    and of the triplets of all matrices together the b with the highest scores are kept; E_i = 0 for the others, which go on receiving
    gradients and may come back at a later cut. With b0 all triplets and bT = ``rank`` times the matrices,

        b = b0 and no cut                                                     while progress <= warmup
        b = floor(bT + (b0 - bT) (1 - (progress - warmup) / (1 - final - warmup))^3)   then, a cut every ``period`` updates
        b = bT, a cut after every update by the last scores                   once progress >= 1 - final

    The loss gains ``orthogonality`` times the mean of |A A^T - I| and |B^T B - I| (Frobenius norms) over all matrices. r0 is a matrix's
    number of triplets at the start, and the divisor of alpha for good. In a recipe of several stages the
    schedule begins anew in each, and triplets that were cut may come back. Memory is that of b0, not bT, and two float32 averages for each
    trained number. A gain over even ranks needs r0 above what the matrix that matters most calls for: 1.5 times the target may be too few.

    Args:
        rank: triplets a matrix at the end, on average, >= 1.
        initial: triplets of every matrix at the start, >= rank; None for 1.5 times rank, rounded up. The smaller side of a matrix bounds it.
        alpha: scale of the update, > 0.
        warmup: share of the budget before the first cut, in [0, 1).
        final: share of the budget at the end in which what is kept stays, in [0, 1); the two below 1 together. Both defaults are about
            what the paper took for its large tasks. With 0 the last cut is one of the schedule, of nearly bT.
        period: updates between cuts, >= 1.
        beta1: decay of the importance's average, in [0, 1).
        beta2: decay of its uncertainty's average, in [0, 1).
        orthogonality: weight of the penalty, >= 0.
        targets: names of the linear layers to adapt; empty for all of them but the output layer.
    """

    title: ClassVar[str] = "AdaLoRA"
    paper: ClassVar[Paper | None] = Paper("2303.10512", "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", 2023)

    rank: int = 8
    initial: int | None = None
    alpha: float = 16.0
    warmup: float = 0.1
    final: float = 0.5
    period: int = 10
    beta1: float = 0.85
    beta2: float = 0.85
    orthogonality: float = 0.1
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1 or self.start < self.rank:
            raise ValueError(f"ranks must be 1 <= rank <= initial, found {self.rank} and {self.initial}")
        if self.alpha <= 0:
            raise ValueError(f"alpha must be > 0, found {self.alpha}")
        if not (self.warmup >= 0 and self.final >= 0 and self.warmup + self.final < 1):
            raise ValueError(f"warmup and final must be >= 0 and below 1 together, found {self.warmup} and {self.final}")
        if self.period < 1:
            raise ValueError(f"period must be >= 1, found {self.period}")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError(f"beta1 and beta2 must lie in [0, 1), found {self.beta1} and {self.beta2}")
        if self.orthogonality < 0:
            raise ValueError(f"orthogonality must be >= 0, found {self.orthogonality}")

    @property
    def start(self) -> int:
        """Triplets of every matrix at the start."""
        return math.ceil(1.5 * self.rank) if self.initial is None else self.initial

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module with triplets in every layer, A and B drawn from the stream (seed, "adapter/adalora/" name)."""
        return swap(
            module.requires_grad_(False),
            lambda name, layer: Triplets(layer, self.start, self.alpha, torch_generator(seed, f"adapter/adalora/{name}")),
            self.targets,
        )

    def before(self, module: nn.Module, moment: Moment) -> None:
        """Nothing depends on the coming update."""

    def after(self, module: nn.Module, optimizer: torch.optim.Optimizer, moment: Moment) -> None:
        """Follow the importance of every element, and cut when it is time to."""
        layers = triplet_layers(module)
        ending = moment.progress >= 1 - self.final
        if not ending:
            for layer in layers:
                layer.watch(self.beta1, self.beta2)
        if ending or (moment.progress > self.warmup and moment.step % self.period == 0):
            scores = [layer.scores() for layer in layers]
            for layer, kept in zip(layers, keep_highest(scores, self.budget(scores, moment.progress)), strict=True):
                layer.cut(kept)

    def budget(self, scores: Sequence[FloatArray], progress: float) -> int:
        """Return how many triplets of all matrices are kept at this share of the budget."""
        first = sum(len(each) for each in scores)
        last = min(self.rank * len(scores), first)
        left = 1 - (progress - self.warmup) / (1 - self.final - self.warmup)
        # shares of a budget come out of divisions: a whole number must not be missed by their last bit
        return math.floor(last + (first - last) * min(max(left, 0.0), 1.0) ** 3 + 1e-9)

    def penalty(self, module: nn.Module) -> torch.Tensor:
        """Return how far the rows of A and the columns of B are from orthonormal, times ``orthogonality``."""
        distances = [distance for layer in triplet_layers(module) for distance in layer.distances()]
        return self.orthogonality * torch.stack(distances).mean()

    def merge(self, module: nn.Module) -> nn.Module:
        """Return the module with plain linear layers, updates added."""
        return make_plain(module)


class Triplets(Reparametrised):
    """A linear layer with W = frozen + alpha / (r0 + 1e-5) B diag(E) A.

    Args:
        layer: whose weight and bias are kept as they are.
        rank: r0; the smaller side of the weight if that is less.
        alpha: scale.
        draw: generator of A and B, on the CPU.
    """

    def __init__(self, layer: nn.Linear, rank: int, alpha: float, draw: torch.Generator) -> None:
        super().__init__()
        out, inner = layer.weight.shape
        rank = min(rank, out, inner)
        self.scale = alpha / (rank + 1e-5)
        self.frozen, self.bias = layer.weight, layer.bias
        kind = torch.promote_types(layer.weight.dtype, torch.float32)
        self.A = nn.Parameter((0.02 * torch.randn(rank, inner, generator=draw)).to(layer.weight.device, kind))
        self.B = nn.Parameter((0.02 * torch.randn(out, rank, generator=draw)).to(layer.weight.device, kind))
        self.E = nn.Parameter(torch.zeros(rank, device=layer.weight.device, dtype=kind))
        for name, part in self._trained():
            for average in ("importance", "uncertainty"):
                self.register_buffer(f"{average}_{name}", torch.zeros_like(part, dtype=torch.float32))

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [("A", self.A), ("B", self.B), ("E", self.E)]

    def effective(self) -> torch.Tensor:
        """Return frozen + scale B diag(E) A."""
        return self.frozen + (self.scale * (self.B * self.E) @ self.A).to(self.frozen.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x W^T + b through the small matrices, so that no matrix of W's size is made."""
        update = functional.linear(functional.linear(x.to(self.A.dtype), self.A) * self.E, self.B)
        return functional.linear(x, self.frozen, self.bias) + (self.scale * update).to(x.dtype)

    @torch.no_grad()
    def watch(self, beta1: float, beta2: float) -> None:
        """Update the averages of |p dL/dp| and of its distance from them; an element without a gradient counts as one with gradient 0."""
        for name, part in self._trained():
            gradient = torch.zeros_like(part) if part.grad is None else part.grad
            now = (part * gradient).abs().float()
            importance, uncertainty = self.get_buffer(f"importance_{name}"), self.get_buffer(f"uncertainty_{name}")
            importance.mul_(beta1).add_(now, alpha=1 - beta1)
            uncertainty.mul_(beta2).add_((now - importance).abs(), alpha=1 - beta2)

    def scores(self) -> FloatArray:
        """Return the score of every triplet, (r0,)."""
        a, b, e = (self.get_buffer(f"importance_{name}") * self.get_buffer(f"uncertainty_{name}") for name in "ABE")
        scores: FloatArray = (e + a.mean(1) + b.mean(0)).double().cpu().numpy()
        return scores

    @torch.no_grad()
    def cut(self, kept: np.ndarray) -> None:
        """Set E_i = 0 where ``kept``, (r0,), is false."""
        self.E.masked_fill_(~torch.from_numpy(kept).to(self.E.device), 0.0)

    def distances(self) -> list[torch.Tensor]:
        """Return |A A^T - I| and |B^T B - I|."""
        one = torch.eye(len(self.E), device=self.E.device, dtype=self.E.dtype)
        return [torch.linalg.matrix_norm(self.A @ self.A.T - one), torch.linalg.matrix_norm(self.B.T @ self.B - one)]


def triplet_layers(module: nn.Module) -> list[Triplets]:
    """Return the layers with triplets, in the module's order."""
    return [part for _, part in reparametrised(module) if isinstance(part, Triplets)]
