"""Quantisation-aware training: linear layers that compute with few-bit weights while whole ones are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from outlay.adapters.base import swap
from outlay.catalog import Paper
from outlay.formats.base import Format
from outlay.formats.integer import Integer


@dataclass(frozen=True)
class Quantised:
    """y = q(x) q(W)^T + b with q(W) = decode(encode(W)), rounded to nearest; the gradient of q is taken to be 1 (straight-through).

    All parameters stay trainable and keep their names; nothing is saved. Afterwards ``weights`` holds W in its bits exactly: encoding the merged
    values changes nothing. Merged layers compute the same when activations are left alone, and take whole activations otherwise. Integers by rows
    are one scale an output channel.

    Args:
        weights: what weights are rounded to.
        activations: what inputs of the layers are rounded to; None to leave them. Scales follow the batch, none are learnt.
        targets: names of the linear layers; empty for all of them but the output layer.
    """

    title: ClassVar[str] = "Quantisation-aware training"
    paper: ClassVar[Paper | None] = Paper(
        "1712.05877", "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2017
    )

    weights: Format = field(default_factory=Integer)
    activations: Format | None = None
    targets: tuple[str, ...] = ()

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module, its linear layers replaced by ones with the same parameters; nothing is drawn.

        Raises:
            InputError: when no layer is named as ``targets`` say.
        """
        if type(module) is nn.Linear:
            return QuantisedLinear(module, self.weights, self.activations)
        return swap(module, lambda _, layer: QuantisedLinear(layer, self.weights, self.activations), self.targets)

    def merge(self, module: nn.Module) -> nn.Module:
        """Return the module with plain linear layers whose weights are the rounded ones. A weight shared with another layer is so no longer."""
        if isinstance(module, QuantisedLinear):
            return module.plain()
        for name, part in list(module.named_modules()):
            if isinstance(part, QuantisedLinear):
                module.set_submodule(name, part.plain())
        return module


class QuantisedLinear(nn.Linear):
    """A linear layer that computes with rounded weights.

    Args:
        layer: whose parameters it takes over, the very same ones.
        weights: what weights are rounded to.
        activations: what inputs are rounded to; None to leave them.
    """

    def __init__(self, layer: nn.Linear, weights: Format, activations: Format | None) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight = layer.weight
        self.bias = layer.bias
        self.train(layer.training)
        self.weights, self.activations = weights, activations

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return q(x) q(W)^T + b."""
        inputs = x if self.activations is None else rounded(x, self.activations)
        return functional.linear(inputs, rounded(self.weight, self.weights), self.bias)

    def plain(self) -> nn.Linear:
        """Return a linear layer of the rounded weights."""
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        layer.weight = nn.Parameter(rounded(self.weight.detach(), self.weights).clone(), self.weight.requires_grad)
        layer.bias = self.bias
        return layer.train(self.training)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, form: Format) -> torch.Tensor:
        return form.decode(form.encode(x), tuple(x.shape)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


def rounded(x: torch.Tensor, form: Format) -> torch.Tensor:
    """Return ``x`` rounded to nearest in a format, in its own type, with a gradient of 1."""
    result: torch.Tensor = _StraightThrough.apply(x, form)
    return result
