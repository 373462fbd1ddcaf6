"""Random columns or rows: a subspace without a single product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.layout import Layout, Shape, Slot, State
from outlay.projectors.base import Place

PAPER = Paper("2411.07837", "FRUGAL: Memory-Efficient Optimization by Reducing State Overhead for Scalable Training", 2024)


def check_density(density: float) -> None:
    """Refuse a density outside [0, 1]."""
    if not 0 <= density <= 1:
        raise ValueError(f"density must lie in [0, 1], found {density}")


@dataclass(frozen=True)
class Columns:
    """R = the columns of G in a set of int(density columns), drawn anew at every refresh. What is left of G is zero in them.

    Args:
        density: share of the columns, in [0, 1]; 0 for none.
    """

    title: ClassVar[str] = "Random columns"
    paper: ClassVar[Paper | None] = PAPER

    density: float = 0.25

    def __post_init__(self) -> None:
        check_density(self.density)

    def turns(self, shape: Shape) -> bool:
        """Columns are those of the matrix as it is."""
        return False

    def layout(self, shape: Shape, place: Place) -> Layout:
        """The columns' numbers, rising."""
        return {"indices": Slot((int(self.density * shape[1]),), torch.int32)}

    def small(self, shape: Shape, place: Place) -> Shape:
        """(rows, chosen columns)."""
        return (shape[0], int(self.density * shape[1]))

    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        """Draw the set without replacement; ``g`` is not looked at."""
        order = torch.randperm(g.shape[1], generator=place.draw(g.device), device=g.device)
        state["indices"] = order[: int(self.density * g.shape[1])].sort().values.to(torch.int32)

    def down(self, state: State, g: torch.Tensor, place: Place) -> torch.Tensor:
        """The chosen columns."""
        return g.index_select(1, state["indices"])

    def up(self, state: State, r: torch.Tensor, shape: Shape, place: Place) -> torch.Tensor:
        """Zeros but for the chosen columns."""
        return r.new_zeros(shape).index_copy_(1, state["indices"].long(), r)

    def turn(self, old: State, new: State, place: Place) -> torch.Tensor:
        """1 where an old column is a new one, else 0: what stays keeps its moments and what comes begins at zero."""
        return (old["indices"][:, None] == new["indices"]).float()


@dataclass(frozen=True)
class Rows(Columns):
    """R = the rows of G in a set of int(density rows), drawn anew at every refresh: the columns of the transposed matrix.

    Args:
        density: share of the rows, in [0, 1]; 0 for none.
    """

    title: ClassVar[str] = "Random rows"

    def turns(self, shape: Shape) -> bool:
        """Rows are the columns of the transposed matrix."""
        return True
