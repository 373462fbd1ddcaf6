"""Geometry of weights: training a chosen part of their entries, and measuring where a run has moved them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import nn

from outlay.adapters.base import Reparametrised, make_plain, swap
from outlay.adapters.lora_xs import leading_triplets
from outlay.catalog import Paper
from outlay.rng import torch_generator

#: which entries of a weight are trained
Kind = Literal["safe", "principal", "small", "random"]


@dataclass(frozen=True)
class SafeMask:
    """Trains round(share x entries) entries of every weight and leaves all others as they are, bit by bit:

        safe       lowest min(place in |W|, place in |W_k|): small ones, and ones off the principal directions
        principal  largest |W_k|
        small      smallest |W|
        random     any

    where W_k is the best approximation of rank ``rank`` and a place counts from the smallest. The safe entries are those that
    ``safe_mask`` finds when it leaves out all but the x smallest of |W_k| and lets in the x smallest of |W|, with the x that makes as many.
    Reinforcement learning was seen to change mostly these. Trained are only as many numbers as there are entries, in float32 at least.

    Measured here on a small policy only (three layers, pre-trained on digits, then policy gradient on shifted ones, half of the entries):
    principal entries moved singular values twice as far as safe ones and reached a reward as high or a little higher.

    Args:
        kind: which entries.
        share: of each weight's entries that are trained, in (0, 1]; the paper's is unknown.
        rank: k, >= 1; the paper's is unknown. A matrix whose smaller side is below it has no entry off its principal directions: W_k = W.
        targets: names of the linear layers to adapt; empty for all of them but the output layer.
    """

    title: ClassVar[str] = "Off the principals"
    paper: ClassVar[Paper | None] = Paper("2511.08567", "The Path Not Taken: RLVR Provably Learns Off the Principals", 2025)

    kind: Kind = "safe"
    share: float = 0.5
    rank: int = 32
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be safe, principal, small or random, found {self.kind!r}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], found {self.share}")
        if self.rank < 1:
            raise ValueError(f"rank must be >= 1, found {self.rank}")

    def attach(self, module: nn.Module, seed: int) -> nn.Module:
        """Return the module with the chosen entries trained; draws come from the stream (seed, "adapter/safe_mask/" name)."""

        def make(name: str, layer: nn.Linear) -> Entries:
            return Entries(layer, self.chosen(layer.weight.detach(), torch_generator(seed, f"adapter/safe_mask/{name}")))

        return swap(module.requires_grad_(False), make, self.targets)

    def chosen(self, weight: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """Return the places of the trained entries in the flat weight, rising, (entries,)."""
        if self.kind == "random":
            order = torch.randperm(weight.numel(), generator=draw).to(weight.device)
        elif self.kind == "small":
            order = ascending(weight.abs())
        else:
            principal = ascending(principal_part(weight, self.rank, draw).abs())
            order = principal.flip(0)
            if self.kind == "safe":
                order = torch.minimum(principal.argsort(), ascending(weight.abs()).argsort()).argsort(stable=True)
        return order[: max(1, round(self.share * weight.numel()))].sort().values

    def merge(self, module: nn.Module) -> nn.Module:
        """Return the module with plain linear layers."""
        return make_plain(module)


class Entries(Reparametrised):
    """A linear layer of which some entries of the weight are trained.

    Args:
        layer: whose weight gives the start, and all that is not trained.
        places: of the trained entries in the flat weight, (entries,).
    """

    places: torch.Tensor

    def __init__(self, layer: nn.Linear, places: torch.Tensor) -> None:
        super().__init__()
        self.frozen, self.bias = layer.weight, layer.bias
        self.register_buffer("places", places)
        start = layer.weight.detach().flatten()[places]
        self.entries = nn.Parameter(start.to(torch.promote_types(start.dtype, torch.float32)))

    def effective(self) -> torch.Tensor:
        """Return the weight with the trained entries in their places."""
        flat = self.frozen.flatten().scatter(0, self.places, self.entries.to(self.frozen.dtype))
        return flat.view(self.frozen.shape)


# ---- masks: booleans of the weight's shape ------------------------------------------------------------------------------------------------


def ascending(values: torch.Tensor) -> torch.Tensor:
    """Return the places of the flat entries from the smallest to the largest, equal ones in their order."""
    return values.flatten().argsort(stable=True)


def principal_part(weight: torch.Tensor, rank: int, draw: torch.Generator) -> torch.Tensor:
    """Return W_k, the best approximation of rank ``rank``, in float32 at least; the generator serves large matrices."""
    left, values, right = leading_triplets(weight, min(rank, *weight.shape), draw)
    return (left * values) @ right


def principal_mask(weight: torch.Tensor, rank: int, share: float, draw: torch.Generator) -> torch.Tensor:
    """Return the round(share x entries) entries with the largest |W_k|."""
    return _first(ascending(principal_part(weight, rank, draw).abs()).flip(0), share, weight)


def small_mask(weight: torch.Tensor, share: float) -> torch.Tensor:
    """Return the round(share x entries) entries with the smallest |W|."""
    return _first(ascending(weight.abs()), share, weight)


def safe_mask(weight: torch.Tensor, rank: int, principal: float, small: float, draw: torch.Generator) -> torch.Tensor:
    """Return what is not among the ``principal`` share of largest |W_k|, or is among the ``small`` share of smallest |W|."""
    return ~principal_mask(weight, rank, principal, draw) | small_mask(weight, small)


def _first(order: torch.Tensor, share: float, weight: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[order[: round(share * weight.numel())]] = True
    return mask.view(weight.shape)


# ---- where a run has moved weights --------------------------------------------------------------------------------------------------------


def changed(before: torch.Tensor, after: torch.Tensor, tolerance: float = 1e-3) -> torch.Tensor:
    """Return which entries count as changed: |after - before| > tolerance max(|before|, |after|).

    The default lies below 2^-8, the least relative distance of two normal bfloat16 numbers, so that of weights in bfloat16 exactly those
    count that differ, and of weights in float32 those that would differ, nearly.
    """
    one, other = before.float(), after.float()
    return (other - one).abs() > tolerance * torch.maximum(one.abs(), other.abs())


def spectral_drift(before: torch.Tensor, after: torch.Tensor) -> float:
    """Return |s' - s| / |s| of the singular values s before and s' after."""
    one, other = torch.linalg.svdvals(before.float()), torch.linalg.svdvals(after.float())
    return float((other - one).norm() / one.norm())


def principal_angles(before: torch.Tensor, after: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the angles between the subspaces of the ``rank`` leading left, and right, singular vectors, in radians, rising, each (rank,)."""
    one, other = (torch.linalg.svd(each.double(), full_matrices=False) for each in (before, after))
    return _angles(one.U[:, :rank], other.U[:, :rank]), _angles(one.Vh[:rank].T, other.Vh[:rank].T)


def _angles(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    cosines = torch.linalg.svdvals(one.T @ other)
    # small angles by their sine, of which the cosine knows nothing: the singular values of what of one lies outside the other
    sines = torch.linalg.svdvals(other - one @ (one.T @ other)).flip(0)
    return torch.atan2(sines, cosines)


class Overlap(NamedTuple):
    """How far one mask lies within another.

    Args:
        share: of the first mask's entries that the second holds too; nan where the first holds none.
        chance: what it would be if the first were anywhere: the share of all entries that the second holds.
    """

    share: float
    chance: float


def overlap(mask: torch.Tensor, other: torch.Tensor) -> Overlap:
    """Return how far ``mask`` lies within ``other``, beside chance."""
    return Overlap(float(other[mask].float().mean()), float(other.float().mean()))
