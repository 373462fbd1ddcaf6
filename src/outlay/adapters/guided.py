"""Structured linear layers, each led at first by a dense one beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from outlay.adapters.base import Reparametrised
from outlay.adapters.restarting import at_least_single
from outlay.errors import InputError


class Guide(nn.Parameter):
    """A dense weight that can be dropped: it keeps its name and shape, so that checkpoints fit, but then holds a single 0 for all entries."""

    @property
    def dropped(self) -> bool:
        """Whether it holds nothing."""
        return not any(self.stride())

    def drop(self) -> None:
        """Hold nothing from now on, neither values nor gradient."""
        self.data = self.data.new_zeros(()).expand(self.shape)
        self.grad = None

    def copy_(self, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        """Take over values, as from a checkpoint that was saved before it was dropped."""
        if self.dropped:
            self.data = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        return super().copy_(source, non_blocking)


class Guided(Reparametrised):
    """A linear layer y = a G x + (1 - a) S x + b: S of two factors U and V, G a dense guide that starts as S.

    Args:
        layer: what it replaces; its bias goes on.
        rank: inner width, where the structure has one of its own.
        blocks: number of blocks, where the structure has them.
        guided: whether there is a guide.
        generator: what is drawn comes from here.
    """

    share: torch.Tensor

    def __init__(self, layer: nn.Linear, rank: int, blocks: int, guided: bool, generator: torch.Generator) -> None:
        super().__init__()
        weight = layer.weight.detach()
        v, u = (factor.to(weight.device, weight.dtype).contiguous() for factor in self.start(weight, rank, blocks, generator))
        self.v, self.u, self.bias = nn.Parameter(v), nn.Parameter(u), layer.bias
        # a, in float32 whatever the weights are
        self.register_buffer("share", torch.tensor(1.0 if guided else 0.0, device=weight.device))
        #: whether this update looks at the guide; set anew before every update
        self.looks = True
        # laid out by rows like its moments once they have been saved: fused optimizers read both as they lie in memory
        self.guide = Guide(self.product().detach().clone(memory_format=torch.contiguous_format)) if guided else None

    def start(self, weight: torch.Tensor, rank: int, blocks: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return V and U as training begins, in place of a dense weight, (out, in).

        Raises:
            InputError: when the blocks do not divide a width.
        """
        raise NotImplementedError

    def path(self, x: torch.Tensor) -> torch.Tensor:
        """Return S x."""
        raise NotImplementedError

    def product(self) -> torch.Tensor:
        """Return S as a matrix, (out, in)."""
        raise NotImplementedError

    def lead(self, share: float) -> None:
        """Set a, never above what it was; at 0 the guide is dropped."""
        share = min(share, float(self.share))
        self.share.fill_(share)
        if self.guide is not None and share == 0:
            self.guide.drop()

    def _leading(self) -> Guide | None:
        return None if self.guide is None or self.guide.dropped else self.guide

    def effective(self) -> torch.Tensor:
        """Return a G + (1 - a) S."""
        guide = self._leading()
        return self.product() if guide is None else self.share * guide + (1 - self.share) * self.product()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mixed output; in an update that does not look at the guide, that of the structure alone."""
        out, guide = self.path(x), self._leading()
        if guide is not None and (self.looks or not self.training):
            out = self.share * functional.linear(x, guide) + (1 - self.share) * out
        return out if self.bias is None else out + self.bias.to(out.dtype)


class LowRankLinear(Guided):
    """S = U V: V of shape (rank, in), U of shape (out, rank), at first U sqrt(s) and sqrt(s) V^T of the weight's leading singular triples."""

    def start(self, weight: torch.Tensor, rank: int, blocks: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factors of the best approximation; a rank above the layer's width is that width."""
        u, s, vt = torch.linalg.svd(at_least_single(weight), full_matrices=False)
        root = s[:rank].sqrt()
        return root[:, None] * vt[:rank], u[:, :rank] * root

    def path(self, x: torch.Tensor) -> torch.Tensor:
        """Return U (V x)."""
        return functional.linear(functional.linear(x, self.v), self.u)

    def product(self) -> torch.Tensor:
        """Return U V."""
        return self.u @ self.v


class BlockDenseLinear(Guided):
    """S = U diag(V): n blocks V of shape (rank / n, in / n), U of shape (out, rank), all drawn with orthonormal rows or columns."""

    def start(self, weight: torch.Tensor, rank: int, blocks: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return drawn blocks and a drawn dense factor."""
        outputs, inputs = weight.shape
        _check_divides(blocks, inputs=inputs, rank=rank)
        first = orthonormal((blocks, rank // blocks, inputs // blocks), generator)
        return first, orthonormal((outputs, rank), generator)

    def path(self, x: torch.Tensor) -> torch.Tensor:
        """Return U (diag(V) x)."""
        return functional.linear(_blockwise(x, self.v).flatten(-2), self.u)

    def product(self) -> torch.Tensor:
        """Return U diag(V)."""
        return self.u @ torch.block_diag(*self.v)


class BlockShuffleLinear(Guided):
    """S = P' diag(U) P diag(V): n blocks V of shape (k, in / n), n blocks U of shape (out / n, k), k = min(in, out) / n.

    P brings entry i n + j to place j k + i, so that every block of U reads of all blocks of V; P' brings place i of block j to i n + j. All blocks
    are drawn with orthonormal rows or columns.
    """

    def start(self, weight: torch.Tensor, rank: int, blocks: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return drawn blocks."""
        outputs, inputs = weight.shape
        _check_divides(blocks, inputs=inputs, outputs=outputs)
        inner = min(inputs, outputs) // blocks
        first = orthonormal((blocks, inner, inputs // blocks), generator)
        return first, orthonormal((blocks, outputs // blocks, inner), generator)

    def path(self, x: torch.Tensor) -> torch.Tensor:
        """Return P' diag(U) P diag(V) x."""
        shuffled = _blockwise(x, self.v).flatten(-2).unflatten(-1, (-1, len(self.v))).transpose(-1, -2).flatten(-2)
        return _blockwise(shuffled, self.u).transpose(-1, -2).flatten(-2)

    def product(self) -> torch.Tensor:
        """Return the matrix: its columns are what becomes of unit vectors."""
        return self.path(torch.eye(self.v.shape[0] * self.v.shape[2], dtype=self.v.dtype, device=self.v.device)).T.contiguous()


def orthonormal(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return drawn matrices, (..., rows, columns), whose shorter sides are orthonormal: U V^T of the decomposition of normal draws."""
    u, _, vt = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    return u @ vt


def _blockwise(x: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """Return block j times the j-th piece of x, (..., blocks, rows of a block)."""
    out: torch.Tensor = torch.einsum("...ji,joi->...jo", x.unflatten(-1, (len(blocks), -1)), blocks)
    return out


def _check_divides(blocks: int, **widths: int) -> None:
    odd = {name: width for name, width in widths.items() if width % blocks}
    if odd:
        found: Any = " and ".join(f"{width} {name}" for name, width in odd.items())
        raise InputError(f"{blocks} blocks must divide a layer's widths, found {found}; choose other blocks or name other targets")
