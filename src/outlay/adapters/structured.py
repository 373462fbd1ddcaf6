"""Structured feed-forward layers with self-guided training."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from outlay.adapters.base import Moment, forget, linear_layers, make_plain, reparametrised
from outlay.adapters.guided import BlockDenseLinear, BlockShuffleLinear, Guided, LowRankLinear
from outlay.catalog import Paper
from outlay.errors import InputError
from outlay.rng import torch_generator

#: names of the linear layers of feed-forward parts
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj", "fc1", "fc2", "fc_in", "fc_out", "dense_h_to_4h", "dense_4h_to_h", "wi", "wo")

_STRUCTURES: dict[str, type[Guided]] = {"low_rank": LowRankLinear, "block_dense": BlockDenseLinear, "block_shuffle": BlockShuffleLinear}


@dataclass(frozen=True)
class Structured:
    """Linear layers of two small factors, from scratch, with a dense guide beside each for the first part of training:

        y = a G x + (1 - a) S x + b,   a = (1 + cos(pi progress / guided)) / 2 below progress = guided, 0 from there on

        low_rank:       S = U V                       rank (in + out) weights
        block_dense:    S = U diag(V)                 rank (in / blocks + out) weights
        block_shuffle:  S = P' diag(U) P diag(V)      k (in + out) / blocks weights, k = min(in, out) / blocks, times blocks

    G starts as S, so where it starts is the structure's own start: for ``low_rank`` the leading singular triples of the layer's own weights, else
    orthonormal draws. While a > 0 the guide costs what a dense layer costs, in weights, gradients, moments and FLOPs. At a = 0 it is dropped
    for good, its gradient and the optimizer's state too; only its name stays. ``cheap_guide`` looks at it in each layer and update with
    probability a, else at the structure alone, which halves its FLOPs. Merged layers are dense, S written out.

    Args:
        structure: what the layers are made of.
        rank: inner width of ``low_rank``, where a narrower layer takes its own width, and of ``block_dense``, >= 1.
        blocks: number of blocks of ``block_dense`` and ``block_shuffle``, >= 1; it must divide the widths.
        guided: share of the stage with a guide, in [0, 1]; 0 for no guide at all.
        cheap_guide: whether the guide is looked at only with probability a.
        first_block: whether the first transformer block is changed too.
        targets: names of the linear layers; feed-forward ones unless given.
    """

    title: ClassVar[str] = "Structured feed-forward layers with self-guided training"
    paper: ClassVar[Paper | None] = Paper(
        "2406.16450", "Building on Efficient Foundations: Effectively Training LLMs with Structured Feedforward Layers", 2024
    )

    structure: Literal["low_rank", "block_dense", "block_shuffle"] = "low_rank"
    rank: int = 192
    blocks: int = 4
    guided: float = 0.5
    cheap_guide: bool = False
    first_block: bool = True
    targets: tuple[str, ...] = FEED_FORWARD

    def __post_init__(self) -> None:
        if self.structure not in _STRUCTURES:
            raise ValueError(f"structure must be one of {', '.join(_STRUCTURES)}, found {self.structure}")
        if self.rank < 1 or self.blocks < 1:
            raise ValueError(f"rank and blocks must be >= 1, found {self.rank} and {self.blocks}")
        if not 0 <= self.guided <= 1:
            raise ValueError(f"guided must lie in [0, 1], found {self.guided}")

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module with structured layers; what is drawn comes from the streams (seed, "adapter/structured/" and the layer's name).

        Raises:
            InputError: when no layer is named as ``targets`` say, or the blocks do not divide its widths.
        """
        chosen = linear_layers(module, self.targets)
        if not self.first_block:
            first = min((number for name, _ in chosen if (number := _block(name)) is not None), default=None)
            chosen = [(name, layer) for name, layer in chosen if first is None or _block(name) != first]
            if not chosen:
                raise InputError("all layers to be structured lie in the first block; set first_block or name other targets")
        for name, layer in chosen:
            draw = torch_generator(seed, f"adapter/structured/{name}")
            made = _STRUCTURES[self.structure](layer, self.rank, self.blocks, self.guided > 0, draw)
            module.set_submodule(name, made)
        return module

    def merge(self, module: nn.Module) -> nn.Module:
        """Return the module with dense linear layers."""
        return make_plain(module)

    def share(self, progress: float) -> float:
        """Return a at ``progress`` of the stage."""
        return 0.0 if progress >= self.guided else (1 + math.cos(math.pi * progress / self.guided)) / 2

    def before(self, module: nn.Module, moment: Moment) -> None:
        """Set a and, with ``cheap_guide``, choose the layers that look at their guides."""
        share = self.share(moment.progress)
        for name, layer in _layers(module):
            layer.lead(share)
            if self.cheap_guide and share > 0:
                draw = torch.rand((), generator=torch_generator(moment.seed, f"adapter/structured/{name}", moment.step))
                layer.looks = bool(draw < layer.share.cpu())

    def after(self, module: nn.Module, optimizer: torch.optim.Optimizer, moment: Moment) -> None:
        """Let the optimizer forget guides that have been dropped."""
        for _, layer in _layers(module):
            if layer.guide is not None and layer.guide.dropped:
                forget(optimizer, layer.guide)


def _block(name: str) -> int | None:
    """Return the number of the block that a layer lies in; None when its path has none."""
    found = re.search(r"(?:^|\.)(\d+)\.", name)
    return int(found[1]) if found else None


def _layers(module: nn.Module) -> Iterator[tuple[str, Guided]]:
    return ((name, layer) for name, layer in reparametrised(module) if isinstance(layer, Guided))
