"""Singular vectors: the directions in which the last gradient is largest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.layout import Layout, Shape, Slot, State
from outlay.projectors.base import Place, check_rank, longer_first


@dataclass(frozen=True)
class Svd:
    """R = G P^T with P, (rank, columns), the leading right singular vectors of the gradient at the last refresh: the best projector of that rank.

    Args:
        rank: directions kept, >= 1; the shorter side where that is less.
    """

    title: ClassVar[str] = "Leading singular vectors"
    paper: ClassVar[Paper | None] = Paper("2403.03507", "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection", 2024)

    rank: int = 128

    def __post_init__(self) -> None:
        check_rank(self.rank)

    def turns(self, shape: Shape) -> bool:
        """The shorter side is compressed."""
        return longer_first(shape)

    def layout(self, shape: Shape, place: Place) -> Layout:
        """P, in the parameter's type."""
        return {"rows": Slot((min(self.rank, *shape), shape[1]))}

    def small(self, shape: Shape, place: Place) -> Shape:
        """(rows, rank)."""
        return (shape[0], min(self.rank, *shape))

    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        """Take the leading right singular vectors of ``g``, in single precision or better."""
        kind = torch.promote_types(g.dtype, torch.float32)
        rows = torch.linalg.svd(g.to(kind), full_matrices=False)[2]
        # a slice would keep all of the singular vectors alive
        state["rows"] = rows[: min(self.rank, *g.shape)].to(g.dtype).clone(memory_format=torch.contiguous_format)

    def down(self, state: State, g: torch.Tensor, place: Place) -> torch.Tensor:
        """G P^T, (rows, rank)."""
        return g @ state["rows"].T

    def up(self, state: State, r: torch.Tensor, shape: Shape, place: Place) -> torch.Tensor:
        """R P."""
        return r @ state["rows"]

    def turn(self, old: State, new: State, place: Place) -> torch.Tensor:
        """P_old P_new^T."""
        return old["rows"] @ new["rows"].T
