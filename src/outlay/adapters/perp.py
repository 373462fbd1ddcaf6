"""PERP: after pruning, a few parameters are retrained in place of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional

from outlay.adapters.base import Reparametrised, linear_layers, make_plain, swap
from outlay.adapters.pruning import input_norms, keep_of_group, keep_share, magnitude, random, wanda
from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.rng import torch_generator


@dataclass(frozen=True)
class Perp:
    """Linear layers are pruned to a mask M; then only biases, the scale and shift of normalisations, and a low-rank update of each pruned W train:

        masked:  W' = W + (alpha / rank) M o (B A)        (MaskLoRA; B = 0 at the start)
        scaled:  W' = W o (B A)                           (ScaleLoRA; B A = 1 at the start)
        pruned:  W' = W + (alpha / rank) B A in training, with M o (B A) in evaluation and when merged  (LoRA-Prune)
        none:    W' = W

    with A of shape (rank, in), B of shape (out, rank), o elementwise and M = (W != 0). Merging keeps every zero. ``masked`` and ``scaled`` write W'
    out at every pass; ``pruned`` does not and is cheaper, but what it trains is not what is used. The published ``pruned`` evaluates the
    unmasked sum until it is merged. An output layer is never pruned and, unlike the paper's optional LoRA there, does not train.

    Wanda's norms are taken of the dense model in one pass over the examples, not block by block. Published learning rate 5e-4 with a linear
    schedule after 10 % of warm-up, no weight decay, about 1000 updates.

    Args:
        sparsity: share of each layer's weights that is pruned, in [0, 1).
        pattern: (N, M) keeps N of every M inputs in place of ``sparsity``, 0 < N < M.
        mask: what is kept: the largest weights of the layer, the largest |W_ij| |x_j| of each output (``wanda``), random ones, or, with ``given``,
            the weights that are not 0 already, as another tool left them.
        update: the form of the low-rank update.
        rank: of the update, > 0.
        alpha: its scale, > 0; not used by ``scaled``.
        biases: whether biases train.
        norms: whether scales and shifts of normalisations train.
        examples: that Wanda looks at, > 0.
        targets: names of the linear layers to prune; empty for all of them but the output layer.
    """

    title: ClassVar[str] = "PERP"
    paper: ClassVar[Paper | None] = Paper("2312.15230", "PERP: Rethinking the Prune-Retrain Paradigm in the Era of LLMs", 2023)

    sparsity: float = 0.5
    pattern: tuple[int, int] | None = None
    mask: Literal["magnitude", "wanda", "random", "given"] = "magnitude"
    update: Literal["masked", "scaled", "pruned", "none"] = "masked"
    rank: int = 16
    alpha: float = 32.0
    biases: bool = True
    norms: bool = True
    examples: int = 128
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity must lie in [0, 1), found {self.sparsity}")
        if self.pattern is not None and not 0 < self.pattern[0] < self.pattern[1]:
            raise ValueError(f"pattern must be (N, M) with 0 < N < M, found {self.pattern}")
        if self.mask not in ("magnitude", "wanda", "random", "given"):
            raise ValueError(f"mask must be magnitude, wanda, random or given, found {self.mask!r}")
        if self.update not in ("masked", "scaled", "pruned", "none"):
            raise ValueError(f"update must be masked, scaled, pruned or none, found {self.update!r}")
        if self.rank <= 0 or self.alpha <= 0 or self.examples <= 0:
            raise ValueError(f"rank, alpha and examples must be > 0, found {self.rank}, {self.alpha} and {self.examples}")
        if self.update == "none" and not (self.biases or self.norms):
            raise ValueError("something must be trained: update is none, biases and norms are off")

    @property
    def prime_examples(self) -> int:
        """Only Wanda looks at data."""
        return self.examples if self.mask == "wanda" else 0

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module pruned (for Wanda only once it is primed), with A drawn from the streams (seed, "adapter/perp/" name).

        Raises:
            InputError: when no layer is named as ``targets`` say, when a layer does not divide into groups of the pattern, or when nothing is
                left to train.
        """
        layers = linear_layers(module, self.targets)
        if self.mask in ("magnitude", "random"):
            for name, layer in layers:
                self._prune(layer.weight, magnitude(layer.weight) if self.mask == "magnitude" else random(layer.weight, seed, name))
        module.requires_grad_(False)
        form = {"masked": _Masked, "scaled": _Scaled, "pruned": _Lifted}.get(self.update)
        if form is not None:
            swap(module, lambda name, layer: form(self, layer, torch_generator(seed, f"adapter/perp/{name}")), self.targets)
        for parameter in self._kept_dense(module):
            parameter.requires_grad_(True)
        if not any(parameter.requires_grad for parameter in module.parameters()):
            raise InputError(
                "PERP has nothing to train: the model has no biases or normalisations of the kinds asked for, and update is none"
            )
        return module

    def prime(self, module: nn.Module, loss: Callable[[int], torch.Tensor], seed: int) -> None:
        """Prune by Wanda's scores; nothing to do for other masks."""
        if self.mask != "wanda":
            return
        layers = list(self._pruned(module))
        norms = input_norms(module, [(name, layer) for name, layer, _ in layers], loss, self.examples)
        for name, _, weight in layers:
            self._prune(weight, wanda(weight, norms[name]))

    def merge(self, module: nn.Module) -> nn.Module:
        """Return the original model with the updates in its weights, zeros where it was pruned."""
        return make_plain(module)

    def _prune(self, weight: torch.Tensor, scores: torch.Tensor) -> None:
        keep = keep_of_group(scores, *self.pattern) if self.pattern else keep_share(scores, self.sparsity, rows=self.mask == "wanda")
        with torch.no_grad():
            weight.masked_fill_(~keep, 0.0)

    def _pruned(self, module: nn.Module) -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
        if self.update == "none":
            yield from ((name, layer, layer.weight) for name, layer in linear_layers(module, self.targets))
        else:
            yield from ((name, part, part.base) for name, part in module.named_modules() if isinstance(part, _Retrained))

    def _kept_dense(self, module: nn.Module) -> Iterator[nn.Parameter]:
        for part in module.modules():
            norm = "norm" in type(part).__name__.lower()
            for name, parameter in part.named_parameters(recurse=False):
                if parameter.dim() == 1 and ((norm and self.norms) or (not norm and self.biases and name.endswith("bias"))):
                    yield parameter


class _Retrained(Reparametrised):
    """A pruned linear layer with factors A, (rank, in), and B, (out, rank)."""

    def __init__(self, spec: Perp, layer: nn.Linear, draw: torch.Generator) -> None:
        super().__init__()
        self.base, self.bias, self.factor = layer.weight, layer.bias, spec.alpha / spec.rank
        bound = 1.0 / math.sqrt(layer.in_features)  # that of a linear layer, as LoRA has it
        self.a = nn.Parameter(torch.empty(spec.rank, layer.in_features).uniform_(-bound, bound, generator=draw).to(layer.weight))
        self.b = nn.Parameter(layer.weight.new_zeros(layer.out_features, spec.rank))


class _Masked(_Retrained):
    def effective(self) -> torch.Tensor:
        # where, not a product: 0 times an overflow is no zero
        return self.base + torch.where(self.base != 0, self.factor * (self.b @ self.a), 0.0)


class _Scaled(_Retrained):
    def __init__(self, spec: Perp, layer: nn.Linear, draw: torch.Generator) -> None:
        super().__init__(spec, layer, draw)
        with torch.no_grad():
            for part in (self.a, self.b):
                part.fill_(1.0 / math.sqrt(spec.rank))

    def effective(self) -> torch.Tensor:
        return torch.where(self.base != 0, self.base * (self.b @ self.a), 0.0)


class _Lifted(_Masked):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        update = functional.linear(functional.linear(x, self.a), self.b)
        return functional.linear(x, self.base, self.bias) + self.factor * update
