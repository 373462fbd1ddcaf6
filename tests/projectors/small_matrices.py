"""Matrices, and what a projector keeps and leaves of them."""

from __future__ import annotations

import torch

from outlay.layout import Slots
from outlay.projectors import Place, Projector


def matrix(rows: int, columns: int, seed: int = 0, rank: int | None = None) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    if rank is None:
        return torch.randn(rows, columns, generator=draw, dtype=torch.float64)
    return torch.randn(rows, rank, generator=draw, dtype=torch.float64) @ torch.randn(rank, columns, generator=draw, dtype=torch.float64)


def chosen(projector: Projector, g: torch.Tensor, place: Place) -> dict[str, torch.Tensor]:
    kept: dict[str, torch.Tensor] = {}
    state = Slots(kept, "")
    state.fill(projector.layout(tuple(g.shape), place), g)
    projector.refresh(state, g, place)
    return kept


def coordinates(projector: Projector, g: torch.Tensor, place: Place | None = None) -> torch.Tensor:
    place = place or Place("w")
    return projector.down(chosen(projector, g, place), g, place)


def part(projector: Projector, g: torch.Tensor, place: Place | None = None) -> torch.Tensor:
    """up(down(G)), with G as a parameter has it."""
    place, turns = place or Place("w"), projector.turns(tuple(g.shape))
    g = g.T if turns else g
    kept = chosen(projector, g, place)
    found = projector.up(kept, projector.down(kept, g, place), tuple(g.shape), place)
    return found.T if turns else found
