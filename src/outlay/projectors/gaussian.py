"""Gaussian sketch: random directions that need neither a decomposition nor memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.layout import Layout, Shape, Slot, State
from outlay.projectors.base import Place, check_rank, longer_first


@dataclass(frozen=True)
class Gaussian:
    """R = G P^T with P, (rank, columns), of independent N(0, 1) / sqrt(rank), drawn anew at every refresh.

    The rows of P are not orthonormal, so down(up(R)) != R: up(down(G)) is not a projection but, like the lengths of R's rows, right on average,
    E[G P^T P] = G and E||R_i||^2 = ||G_i||^2. Made for rules that read sizes off R and step along G.

    Args:
        rank: rows of P, >= 1; the shorter side where that is less.
        stored: whether P is kept; else it is drawn from its stream again wherever it is used, the same bits, and nothing is kept.
    """

    title: ClassVar[str] = "Gaussian sketch"
    paper: ClassVar[Paper | None] = Paper("2412.05270", "APOLLO: SGD-like Memory, AdamW-level Performance", 2024)
    inverts: ClassVar[bool] = False

    rank: int = 128
    stored: bool = False

    def __post_init__(self) -> None:
        check_rank(self.rank)

    def turns(self, shape: Shape) -> bool:
        """The shorter side is compressed."""
        return longer_first(shape)

    def layout(self, shape: Shape, place: Place) -> Layout:
        """P, in the parameter's type, where it is stored."""
        return {"rows": Slot((min(self.rank, *shape), shape[1]))} if self.stored else {}

    def small(self, shape: Shape, place: Place) -> Shape:
        """(rows, rank)."""
        return (shape[0], min(self.rank, *shape))

    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        """Draw P where it is stored; ``g`` is not looked at."""
        if self.stored:
            state["rows"] = self._drawn((g.shape[0], g.shape[1]), g, place)

    def down(self, state: State, g: torch.Tensor, place: Place) -> torch.Tensor:
        """G P^T, (rows, rank)."""
        return g @ self._rows(state, (g.shape[0], g.shape[1]), g, place).T

    def up(self, state: State, r: torch.Tensor, shape: Shape, place: Place) -> torch.Tensor:
        """R P."""
        return r @ self._rows(state, shape, r, place)

    def _rows(self, state: State, shape: Shape, like: torch.Tensor, place: Place) -> torch.Tensor:
        return state["rows"] if self.stored else self._drawn(shape, like, place)

    def _drawn(self, shape: Shape, like: torch.Tensor, place: Place) -> torch.Tensor:
        rank = min(self.rank, *shape)
        draw = torch.randn(rank, shape[1], generator=place.draw(like.device), device=like.device)
        return draw.div_(math.sqrt(rank)).to(like.dtype)
