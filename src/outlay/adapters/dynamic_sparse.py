"""Dynamic sparse learning: so many weights and no more, in places that change while the run goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from outlay.adapters.base import Moment, Reparametrised, linear_layers, make_plain
from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.rng import torch_generator


@dataclass(frozen=True)
class DynamicSparse:
    """Each weight W keeps ``density`` of its entries, drawn at random at first; the others are 0. After every ``period``-th update, in each W:

        n = floor(share (1 + cos(pi progress)) / 2 * count)
        drop the n kept entries with the smallest |W|, grow the n others with the largest |dL/dW|, at 0 and without history

    What was dropped is not grown again at once. Everything else trains as it is. The kept entries are a leaf (1, count) and its positions, so
    gradient, optimizer state and what is saved scale with the density; W is written out at every pass. The gradient at the other places is
    needed at every ``period``-th update alone: only then is that of each W kept, from its backward pass to the end of the update, summed over
    micro-batches and processes. Grown entries take the places of dropped ones in the leaf, where every state tensor of the leaf's
    shape is set to 0; state of another shape (projected, below 8 bits) is left as it is.

    Every W keeps the number of entries that it starts with, as published by default: to move some from one W to another, leaves would have to change
    their length under a running optimizer. Published weight decay none, L2 1e-4 in the loss.

    Args:
        density: share of the entries that is kept, in (0, 1].
        share: of the kept entries that is replaced at the first time, in [0, 1].
        period: updates between replacements, >= 1.
        embeddings: whether embedding tables are made sparse too.
        targets: names of the linear layers and tables; empty for all of them but the output layer.
    """

    title: ClassVar[str] = "Dynamic sparse learning"
    paper: ClassVar[Paper | None] = Paper("2402.02855", "Dynamic Sparse Learning: A Novel Paradigm for Efficient Recommendation", 2024)

    density: float = 0.5
    share: float = 0.5
    period: int = 3000
    embeddings: bool = True
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ValueError(f"density must lie in (0, 1], found {self.density}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must lie in [0, 1], found {self.share}")
        if self.period < 1:
            raise ValueError(f"period must be >= 1, found {self.period}")

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module made sparse, the kept places drawn from the streams (seed, "adapter/dynamic_sparse/" name).

        Raises:
            InputError: when nothing is named as ``targets`` say.
        """
        for name, layer in self._chosen(module):
            draw = torch_generator(seed, f"adapter/dynamic_sparse/{name}")
            total = layer.weight.numel()
            count = max(1, round(self.density * total))
            index = torch.randperm(total, generator=draw)[:count].sort().values
            index = index.to(layer.weight.device)
            sparse = _SparseEmbedding(layer, index) if isinstance(layer, nn.Embedding) else _SparseLinear(layer, index)
            module.set_submodule(name, sparse)
        return module

    def _chosen(self, module: nn.Module) -> list[tuple[str, nn.Linear | nn.Embedding]]:
        getter = getattr(module, "get_output_embeddings", None)
        output = getter() if getter is not None else None
        tied = output.weight if output is not None else None
        tables: list[tuple[str, nn.Linear | nn.Embedding]] = [
            (name, part)
            for name, part in module.named_modules()
            if self.embeddings and isinstance(part, nn.Embedding) and part.weight is not tied
            and (not self.targets or any(name == t or name.endswith(f".{t}") for t in self.targets))
        ]  # fmt: skip
        try:
            return [*tables, *linear_layers(module, self.targets)]
        except InputError:
            # a model of tables alone has no linear layers to miss; one of Conv1D has
            if not tables or (not self.targets and any(type(part).__name__ == "Conv1D" for part in module.modules())):
                raise
            return tables

    def merge(self, module: nn.Module) -> nn.Module:
        """Return the original model with zeros where nothing is kept."""
        return make_plain(module)

    def before(self, module: nn.Module, moment: Moment) -> None:
        """Ask for dense gradients where this update is to replace entries."""
        for layer in _sparse(module):
            layer.watched, layer.dense = moment.step % self.period == 0, None

    @torch.no_grad()
    def after(self, module: nn.Module, optimizer: torch.optim.Optimizer, moment: Moment) -> None:
        """Drop and grow, every ``period`` updates."""
        if moment.step % self.period:
            return
        share = self.share * (1.0 + math.cos(math.pi * min(1.0, moment.progress))) / 2.0
        for layer in _sparse(module):
            slots = layer.replace(int(share * layer.index.numel()))
            layer.watched, layer.dense = False, None
            for kept in optimizer.state.get(layer.values, {}).values():
                if isinstance(kept, torch.Tensor) and kept.shape == layer.values.shape:
                    kept[:, slots] = 0


class _Sparse(Reparametrised):
    """A weight whose entries are ``values``, (1, count), at the flat positions ``index``, (count,), and 0 elsewhere."""

    index: torch.Tensor

    def __init__(self, weight: torch.Tensor, index: torch.Tensor) -> None:
        super().__init__()
        self.rows, self.columns = weight.shape
        # a matrix of one row: unlike a vector, it is to decay
        self.values = nn.Parameter(weight.detach().flatten()[index][None])
        self.register_buffer("index", index)
        self.watched = False
        self.dense: torch.Tensor | None = None

    def effective(self) -> torch.Tensor:
        flat = self.values.new_zeros(self.rows * self.columns).scatter(0, self.index, self.values[0])
        if self.watched and flat.requires_grad:
            flat.register_hook(self._keep)
        return flat.view(self.rows, self.columns)

    def _keep(self, gradient: torch.Tensor) -> None:
        self.dense = gradient.detach().clone() if self.dense is None else self.dense.add_(gradient.detach())

    def replace(self, count: int) -> torch.Tensor:
        """Replace so many entries, fewer where fewer are missing; return their places in the leaf."""
        # a layer that one process did not use may have been used by another
        dense = self.dense if self.dense is not None else self.values.new_zeros(self.rows * self.columns)
        _sum_over_processes(dense)
        count = min(count, dense.numel() - self.index.numel()) if dense.any() else 0
        slots = self.values[0].abs().argsort(stable=True)[:count]
        candidates = dense.abs_()
        candidates[self.index] = -1.0  # what is kept, and what was just dropped
        self.index[slots] = candidates.argsort(descending=True, stable=True)[:count]
        self.values[:, slots] = 0
        return slots


class _SparseLinear(_Sparse):
    def __init__(self, layer: nn.Linear, index: torch.Tensor) -> None:
        super().__init__(layer.weight, index)
        self.bias = layer.bias


class _SparseEmbedding(_Sparse):
    def __init__(self, table: nn.Embedding, index: torch.Tensor) -> None:
        super().__init__(table.weight, index)
        self.bias, self.padding = None, table.padding_idx

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.embedding(x, self.effective(), self.padding)

    def plain(self) -> nn.Embedding:  # type: ignore[override]  # a table was there, a table comes back
        return nn.Embedding(self.rows, self.columns, self.padding, _weight=self.effective().detach().clone())


def _sparse(module: nn.Module) -> Iterator[_Sparse]:
    for part in module.modules():
        if isinstance(part, _Sparse):
            yield part


def _sum_over_processes(gradient: torch.Tensor) -> None:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(gradient)
