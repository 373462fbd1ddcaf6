"""Intrinsic dimension: a whole network trained in a few numbers, through a random projection into all of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import pad

from outlay.adapters.tensors import chosen_tensors, project, settle
from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.rng import torch_generator

#: what is trained, parameters of the root: theta, (dimensions,), and the scales, (layers,)
THETA, SCALES = "intrinsic_theta", "intrinsic_scales"


@dataclass(frozen=True)
class Intrinsic:
    """Every tensor w of D numbers becomes w0 + scale P theta with one theta, 0 at the start, for the whole network. P is a Fastfood projection
    drawn once for each tensor: with L the next power of two from D and theta's length, theta filled up with zeros to L,

        P theta = first D of  H G Pi H B theta / sqrt(D sum g^2)

    where B are random signs, H is the Walsh-Hadamard transform, Pi a permutation and G = diag(g) Gaussian; so |P theta| is about |theta|
    whatever D is. It takes L log L operations and no matrix. ``scale`` is 1, or trained from 1 on, one for each layer, with
    ``structured``; the scales are counted in ``dimensions``. A layer is a module that holds weights of its own.

    B, Pi and g are drawn anew from the seed whenever the adapter is attached and are not saved; they take 13 bytes for each of the L numbers.

    Args:
        dimensions: trained numbers in all, >= 1.
        structured: whether each layer has a scale.
        targets: names of the tensors that move, whole or their last parts, such as ``weight`` or ``q_proj.weight``; empty for all of them.
    """

    title: ClassVar[str] = "Intrinsic dimension"
    paper: ClassVar[Paper | None] = Paper(
        "2012.13255", "Intrinsic Dimensionality Explains the Effectiveness of Language Model Fine-Tuning", 2020
    )

    dimensions: int = 1000
    structured: bool = True
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dimensions < 1:
            raise ValueError(f"dimensions must be >= 1, found {self.dimensions}")

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module with its tensors projected, drawn from the streams (seed, "adapter/intrinsic/" name).

        Raises:
            InputError: when no tensor is named as ``targets`` say, or the scales leave no dimension.
        """
        chosen = chosen_tensors(module, self.targets)
        owners = list(dict.fromkeys(name.rpartition(".")[0] for name in chosen))
        scales = len(owners) if self.structured else 0
        if self.dimensions <= scales:
            raise InputError(
                f"{self.dimensions} dimensions leave none beside the scales of {scales} layers; take more, or structured: false"
            )
        sample = next(iter(chosen.values()))
        start = sample.detach().new_zeros(self.dimensions - scales, dtype=torch.promote_types(sample.dtype, torch.float32))

        def make(name: str, tensor: torch.Tensor) -> Fastfood:
            layer = owners.index(name.rpartition(".")[0]) if self.structured else None
            return Fastfood(tensor, module, len(start), layer, torch_generator(seed, f"adapter/intrinsic/{name}"))

        module.requires_grad_(False)
        module.register_parameter(THETA, nn.Parameter(start))
        if scales:
            module.register_parameter(SCALES, nn.Parameter(start.new_ones(scales)))
        return project(module, make, set(chosen))

    def merge(self, module: nn.Module) -> nn.Module:
        """Return the module with its tensors where they are now, and nothing beside them."""
        settle(module)
        for own in (THETA, SCALES):
            if hasattr(module, own):
                delattr(module, own)
        return module.requires_grad_(True)


class Fastfood(nn.Module):
    """w0 -> w0 + scale P theta.

    Args:
        tensor: w0, of any shape.
        root: the module that has theta and the scales.
        dimensions: length of theta.
        layer: number of its scale; None for 1.
        draw: generator of P, on the CPU.
    """

    signs: torch.Tensor
    order: torch.Tensor
    gains: torch.Tensor

    def __init__(self, tensor: torch.Tensor, root: nn.Module, dimensions: int, layer: int | None, draw: torch.Generator) -> None:
        super().__init__()
        self._root, self.layer = (root,), layer  # in a tuple, or the root would be a part of its own part
        length = 1 << (max(tensor.numel(), dimensions) - 1).bit_length()
        signs = torch.randint(0, 2, (length,), generator=draw, dtype=torch.int8) * 2 - 1
        order, gains = torch.randperm(length, generator=draw), torch.randn(length, generator=draw)
        for name, part in (("signs", signs), ("order", order), ("gains", gains)):
            self.register_buffer(name, part.to(tensor.device), persistent=False)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return w0 + scale P theta."""
        (root,) = self._root
        change = self.projected(root.get_parameter(THETA), tensor.numel()).reshape(tensor.shape)
        if self.layer is not None:
            change = root.get_parameter(SCALES)[self.layer] * change
        return tensor + change.to(tensor.dtype)

    def projected(self, theta: torch.Tensor, count: int) -> torch.Tensor:
        """Return P theta, (count,)."""
        x = pad(theta, (0, len(self.signs) - len(theta))) * self.signs
        x = walsh_hadamard(x)[self.order] * self.gains
        return walsh_hadamard(x)[:count] / (count * self.gains.square().sum()).sqrt()


def walsh_hadamard(x: torch.Tensor) -> torch.Tensor:
    """Return H x, (..., length), with H_ij = (-1)^(number of ones that i and j share in binary); H H x = length x.

    Args:
        x: (..., length) with a length that is a power of two.
    """
    length, half = x.shape[-1], 1
    if length & (length - 1) or length == 0:
        raise ValueError(f"the length must be a power of two, found {length}")
    while half < length:
        pairs = x.reshape(*x.shape[:-1], length // (2 * half), 2, half)
        first, second = pairs.unbind(-2)
        x = torch.stack([first + second, first - second], -2).reshape(x.shape)
        half *= 2
    return x


def intrinsic_dimension(scores: Mapping[int, float], full: float, share: float = 0.9) -> int | None:
    """Return the smallest number of dimensions that reaches ``share`` of what training everything reaches; None where none does.

    Args:
        scores: dimensions -> score of a model trained in so many, higher is better.
        full: score of the model that was trained in full.
        share: of ``full``, in (0, 1]; 0.9 gives what is known as d90.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], found {share}")
    return min((d for d, score in scores.items() if score >= share * full), default=None)
