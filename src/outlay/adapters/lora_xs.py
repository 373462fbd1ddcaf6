"""LoRA-XS: a small square matrix between frozen singular vectors of the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from outlay.adapters.base import Reparametrised, make_plain, swap
from outlay.catalog import Paper
from outlay.rng import torch_generator

#: U, (out, rank); S, (rank,); V^T, (rank, in)
Triplets = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class LoraXs:
    """With U, S, V^T the leading singular triplets of a weight W, only R, (rank, rank), is trained:

        B = U diag(S),  A = V^T,  R ~ N(0, deviation^2) at the start,  W' = W + (alpha / rank) B R A

    rank^2 trained numbers a matrix whatever its size. The update can only mix directions in which W is already strong: what lies outside
    is out of reach, however long one trains. Where the smaller side of a matrix is below ``rank``, it takes its place.

    Args:
        rank: singular triplets of each weight, >= 1.
        alpha: scale of the update, > 0; the default is from memory of the authors' scripts.
        deviation: standard deviation of R at the start, >= 0.
        scaled: whether B holds the singular values, as in the paper; False leaves B orthonormal.
        targets: names of the linear layers to adapt; empty for all of them but the output layer.
    """

    title: ClassVar[str] = "LoRA-XS"
    paper: ClassVar[Paper | None] = Paper("2405.17604", "LoRA-XS: Low-Rank Adaptation with Extremely Small Number of Parameters", 2024)

    rank: int = 16
    alpha: float = 16.0
    deviation: float = 1e-5
    scaled: bool = True
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be >= 1, found {self.rank}")
        if self.alpha <= 0:
            raise ValueError(f"alpha must be > 0, found {self.alpha}")
        if self.deviation < 0:
            raise ValueError(f"deviation must be >= 0, found {self.deviation}")

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module with R in every layer, drawn from the stream (seed, "adapter/lora_xs/" name)."""

        def make(name: str, layer: nn.Linear) -> Core:
            draw = torch_generator(seed, f"adapter/lora_xs/{name}")
            core = Core(layer, self.rank, self.alpha / self.rank)
            left, values, right = leading_triplets(layer.weight.detach(), core.rank, draw)
            core.set(left * values if self.scaled else left, self.deviation * torch.randn(core.rank, core.rank, generator=draw), right)
            return core

        return swap(module.requires_grad_(False), make, self.targets)

    def merge(self, module: nn.Module) -> nn.Module:
        """Return the module with plain linear layers, updates added."""
        return make_plain(module)


class Core(Reparametrised):
    """A linear layer with W = frozen + scale B R A of which R is trained; B, R and A are 0 until they are set.

    Args:
        layer: whose weight and bias are kept as they are.
        rank: side of R; the smaller side of the weight if that is less.
        scale: factor of the update.
    """

    frozen: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor

    def __init__(self, layer: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        out, inner = layer.weight.shape
        self.rank, self.scale = min(rank, out, inner), scale
        self.frozen, self.bias = layer.weight, layer.bias
        start = layer.weight.new_zeros((), dtype=torch.promote_types(layer.weight.dtype, torch.float32))
        self.register_buffer("left", start.new_zeros(out, self.rank))
        self.register_buffer("right", start.new_zeros(self.rank, inner))
        self.core = nn.Parameter(start.new_zeros(self.rank, self.rank))

    def set(self, left: torch.Tensor, core: torch.Tensor, right: torch.Tensor) -> None:
        """Set B, (out, rank), R, (rank, rank), and A, (rank, in)."""
        with torch.no_grad():
            self.left.copy_(left)
            self.core.copy_(core)
            self.right.copy_(right)

    def effective(self) -> torch.Tensor:
        """Return frozen + scale B R A."""
        return self.frozen + (self.scale * (self.left @ self.core @ self.right)).to(self.frozen.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x W^T + b through the small matrices, so that no matrix of W's size is made."""
        inner = functional.linear(functional.linear(x.to(self.core.dtype), self.right), self.core)
        update = functional.linear(inner, self.left)
        return functional.linear(x, self.frozen, self.bias) + (self.scale * update).to(x.dtype)


def leading_triplets(matrix: torch.Tensor, rank: int, draw: torch.Generator, iterations: int = 10, extra: int = 10) -> Triplets:
    """Return the ``rank`` leading singular triplets, in float32 at least.

    Where ``rank + extra`` is below the smaller side they come from a random start of that many directions and power iterations, each
    orthonormalised; else from the full decomposition.

    Args:
        matrix: (out, in).
        rank: how many, >= 1 and at most the smaller side.
        draw: generator of the start, on the CPU.
        iterations: passes over the matrix and its transpose, >= 0.
        extra: directions beside those asked for, >= 0.
    """
    wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    width = rank + extra
    if width >= min(wide.shape):
        left, values, right = torch.linalg.svd(wide, full_matrices=False)
        return left[:, :rank], values[:rank], right[:rank]
    start = torch.randn(wide.shape[1], width, generator=draw).to(wide)
    basis = torch.linalg.qr(wide @ start).Q
    for _ in range(iterations):
        basis = torch.linalg.qr(wide @ torch.linalg.qr(wide.T @ basis).Q).Q
    small, values, right = torch.linalg.svd(basis.T @ wide, full_matrices=False)
    return (basis @ small)[:, :rank], values[:rank], right[:rank]
