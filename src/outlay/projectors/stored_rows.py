"""What projectors with a stored orthonormal basis share: all but how the basis is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from outlay.layout import Layout, Shape, Slot, State
from outlay.projectors.base import Place, check_rank, longer_first


@dataclass(frozen=True)
class StoredRows:
    """R = G P^T with P, (rank, columns), of orthonormal rows, kept under ``rows``; a class below chooses P in ``refresh``.

    Args:
        rank: directions kept, >= 1; the shorter side where that is less.
    """

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

    def down(self, state: State, g: torch.Tensor, place: Place) -> torch.Tensor:
        """G P^T, (rows, rank)."""
        return g @ state["rows"].T

    def up(self, state: State, r: torch.Tensor, shape: Shape, place: Place) -> torch.Tensor:
        """R P."""
        return r @ state["rows"]

    def turn(self, old: State, new: State, place: Place) -> torch.Tensor:
        """P_old P_new^T."""
        return old["rows"] @ new["rows"].T
