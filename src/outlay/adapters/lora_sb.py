"""LoRA-SB: a small square matrix in the subspace of the first full fine-tuning step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from outlay.adapters.base import make_plain, reparametrised, swap
from outlay.adapters.lora_xs import Core, leading_triplets
from outlay.catalog import Paper
from outlay.rng import torch_generator


@dataclass(frozen=True)
class LoraSb:
    """With G the sum of the gradients of a weight W over ``prime_examples`` examples, only R, (rank, rank), is trained:

        D = -rate sign(G),  B = U, R = diag(S), A = V^T of the ``rank`` leading singular triplets of D,  W' = W + B R A

    so that the model starts moved by the best approximation of rank ``rank`` of Adam's first step. B and A are orthonormal, for which the
    gradient of R is the one whose step comes closest to the full gradient's: a step of R along dL/dR moves W' along B B^T (dL/dW') A^T A.
    rank^2 trained numbers a matrix; where the smaller side of a matrix is below ``rank``, it takes its place.

    Without ``sign``, D = -rate G: the subspace is the gradient's own, which suits updates of low rank better, since the sign of a matrix of
    low rank has full rank. Without ``moved``, R = 0 at the start and the model starts as it was.

    While it looks at the examples, the sums take as many numbers, in float32, as there are adapted weights, beside one weight's gradient at
    a time and the activations of one example; all of it is freed before the first update.

    Args:
        rank: side of R, >= 1.
        prime_examples: examples whose gradients are summed, >= 1.
        rate: learning rate of the step that is approximated, > 0. The paper's is the first of the warm-up, lr / (warm-up's share of the
            updates times their number): about 3e-6 for 1e-4, 0.02 and 1600 updates.
        sign: whether D is the sign of the gradient.
        moved: whether the model starts moved by D's approximation.
        targets: names of the linear layers to adapt; empty for all of them but the output layer.
    """

    title: ClassVar[str] = "LoRA-SB"
    paper: ClassVar[Paper | None] = Paper(
        "2411.19557", "Initialization using Update Approximation is a Silver Bullet for Extremely Efficient Low-Rank Fine-Tuning", 2024
    )

    rank: int = 96
    prime_examples: int = 50
    rate: float = 3e-6
    sign: bool = True
    moved: bool = True
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("rank", self.rank), ("prime_examples", self.prime_examples)):
            if least < 1:
                raise ValueError(f"{name} must be >= 1, found {least}")
        if self.rate <= 0:
            raise ValueError(f"rate must be > 0, found {self.rate}")

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module with layers that compute as before; their B, R and A are 0 until ``prime`` sets them."""
        return swap(module.requires_grad_(False), lambda name, layer: Core(layer, self.rank, 1.0), self.targets)

    def prime(self, module: nn.Module, loss: Callable[[int], torch.Tensor], seed: int) -> None:
        """Sum the gradients of the adapted weights over the examples and set B, R and A by them."""
        layers = {name: part for name, part in reparametrised(module) if isinstance(part, Core)}
        trained = [p for p in module.parameters() if p.requires_grad]
        try:
            for p in trained:
                p.requires_grad_(False)
            totals = self._summed({id(layer.frozen): layer.frozen for layer in layers.values()}, loss)
        finally:
            for p in trained:
                p.requires_grad_(True)
        for name, layer in layers.items():
            total = totals[id(layer.frozen)]
            step = -self.rate * (total.sign() if self.sign else total)
            left, values, right = leading_triplets(step, layer.rank, torch_generator(seed, f"adapter/lora_sb/{name}"))
            layer.set(left, torch.diag(values) if self.moved else torch.zeros_like(layer.core), right)

    def _summed(self, weights: dict[int, torch.Tensor], loss: Callable[[int], torch.Tensor]) -> dict[int, torch.Tensor]:
        """Return the sum of each weight's gradients, in float32 at least; a gradient is dropped as soon as it is added."""
        totals = {key: torch.zeros_like(w, dtype=torch.promote_types(w.dtype, torch.float32)) for key, w in weights.items()}

        def add(weight: torch.Tensor) -> None:
            if weight.grad is not None:
                totals[id(weight)].add_(weight.grad)
                weight.grad = None

        hooks = []
        try:
            for weight in weights.values():
                hooks.append(weight.requires_grad_(True).register_post_accumulate_grad_hook(add))
            for number in range(self.prime_examples):
                loss(number).backward()
        finally:
            for hook in hooks:
                hook.remove()
            for weight in weights.values():
                weight.requires_grad_(False)
        return totals

    def merge(self, module: nn.Module) -> nn.Module:
        """Return the module with plain linear layers, updates added."""
        return make_plain(module)
