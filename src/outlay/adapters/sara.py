"""SaRA: the weights that are too small to matter are trained, the others stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from outlay.adapters.base import Moment, Reparametrised, linear_layers, make_plain
from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.rng import numpy_generator


@dataclass(frozen=True)
class Sara:
    """Of each linear layer's weight W only the entries M = |W| < threshold, as they are at the start, are trained:

        loss + penalty_weight |W o M|_*   (nuclear norm) of one layer a step, drawn from the stream (seed, "adapter/sara", step)
        M <- M o (|W| < threshold)        once, when ``refine_at`` of the budget is spent

    The entries are a leaf (1, count) that is written into the frozen W at every pass, so that gradients and optimizer state exist for them alone;
    entries that leave M stay at the value they have then and keep their place in the leaf, and the moments of those that remain are kept.
    The leaf is a matrix of one row because, unlike a vector, it is to decay; published weight decay 0.01, learning rate 1e-3 exp(-350 threshold)
    with a cosine. Unlike the published optimizer, which works on all tensors, convolutions, embeddings, biases and normalisations are frozen.

    Args:
        threshold: size below which an entry is trained, > 0.
        penalty_weight: of the nuclear norm, >= 0; 0 leaves it out.
        refine_at: share of the budget after which M is refined, in (0, 1); None for never.
        side: only layers with more inputs and more outputs than this are penalised, >= 0.
        entries: only layers with more trained entries than this are penalised, >= 0.
        targets: names of the linear layers; empty for all of them but the output layer.
    """

    title: ClassVar[str] = "SaRA"
    paper: ClassVar[Paper | None] = Paper(
        "2409.06633", "SaRA: High-Efficient Diffusion Model Fine-tuning with Progressive Sparse Low-Rank Adaptation", 2024
    )

    threshold: float = 2e-3
    penalty_weight: float = 5e-4
    refine_at: float | None = 0.5
    side: int = 64
    entries: int = 100
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.threshold <= 0:
            raise ValueError(f"threshold must be > 0, found {self.threshold}")
        if self.penalty_weight < 0:
            raise ValueError(f"penalty_weight must be >= 0, found {self.penalty_weight}")
        if self.refine_at is not None and not 0 < self.refine_at < 1:
            raise ValueError(f"refine_at must lie in (0, 1), found {self.refine_at}")
        if self.side < 0 or self.entries < 0:
            raise ValueError(f"side and entries must be >= 0, found {self.side} and {self.entries}")

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module with its small weights as leaves; layers without any stay as they are, frozen.

        Raises:
            InputError: when no layer is named as ``targets`` say, or when no weight is below the threshold.
        """
        layers = linear_layers(module, self.targets)
        module.requires_grad_(False)
        smallest = min(float(layer.weight.detach().abs().min()) for _, layer in layers)
        if smallest >= self.threshold:
            raise InputError(f"SaRA has nothing to train: the smallest weight is {smallest:.3g} and threshold {self.threshold:.3g}")
        for name, layer in layers:
            small = layer.weight.detach().abs() < self.threshold
            if small.any():
                module.set_submodule(name, _Small(layer, small))
        return module

    def merge(self, module: nn.Module) -> nn.Module:
        """Return the original model with the trained entries in its weights."""
        return make_plain(module)

    @torch.no_grad()
    def before(self, module: nn.Module, moment: Moment) -> None:
        """Draw the layer that is penalised in this update, and refine M when it is time."""
        layers = list(_small(module))
        if self.refine_at is not None and moment.progress >= self.refine_at:
            for layer in layers:
                layer.refine(self.threshold)
        eligible = [layer for layer in layers if min(layer.base.shape) > self.side and int(layer.trained.sum()) > self.entries]
        number = int(numpy_generator(moment.seed, "adapter/sara", moment.step).integers(len(eligible))) if eligible else -1
        for layer in layers:
            layer.penalised = number >= 0 and layer is eligible[number]

    def after(self, module: nn.Module, optimizer: torch.optim.Optimizer, moment: Moment) -> None:
        """Nothing."""

    def penalty(self, module: nn.Module) -> torch.Tensor:
        """Return the weighted nuclear norm of the drawn layer's trained entries; 0 when no layer is large enough."""
        layers = list(_small(module))
        total = layers[0].values.new_zeros(())
        for layer in layers:
            if layer.penalised and self.penalty_weight:
                total = total + self.penalty_weight * layer.nuclear_norm()
        return total


class _Small(Reparametrised):
    """A linear layer whose small weights are ``values``, (1, count), at the flat positions ``index``, (count,).

    ``trained`` says which are still trained; the others are ``held`` at what they were.
    """

    index: torch.Tensor
    trained: torch.Tensor
    held: torch.Tensor
    refined: torch.Tensor

    def __init__(self, layer: nn.Linear, small: torch.Tensor) -> None:
        super().__init__()
        self.base, self.bias, self.penalised = layer.weight, layer.bias, False
        index = small.flatten().nonzero().flatten()
        values = layer.weight.detach().flatten()[index]
        self.values = nn.Parameter(values[None].clone())
        self.register_buffer("index", index)
        self.register_buffer("trained", torch.ones_like(index, dtype=torch.bool))
        self.register_buffer("held", values)
        self.register_buffer("refined", torch.zeros((), dtype=torch.bool, device=index.device))

    def effective(self) -> torch.Tensor:
        current = torch.where(self.trained, self.values[0], self.held)
        return self.base.flatten().scatter(0, self.index, current).view_as(self.base)

    def refine(self, threshold: float) -> None:
        """Stop training the entries that are no longer small, once."""
        if self.refined:
            return
        self.held.copy_(self.values[0])
        self.trained.logical_and_(self.values[0].abs() < threshold)
        self.refined.fill_(True)

    def nuclear_norm(self) -> torch.Tensor:
        """Return the sum of the singular values of W o M, in single precision or better."""
        flat = self.values.new_zeros(self.base.numel()).scatter(0, self.index, self.values[0] * self.trained)
        matrix = flat.view_as(self.base)
        return torch.linalg.matrix_norm(matrix.to(torch.promote_types(matrix.dtype, torch.float32)), "nuc")


def _small(module: nn.Module) -> Iterator[_Small]:
    for part in module.modules():
        if isinstance(part, _Small):
            yield part
