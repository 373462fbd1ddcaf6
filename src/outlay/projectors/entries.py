"""Random entries: single elements of a matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from outlay.catalog import Paper
from outlay.layout import Layout, Shape, Slot, State
from outlay.projectors.base import Place
from outlay.projectors.columns import PAPER, check_density


@dataclass(frozen=True)
class Entries:
    """R = the entries of G in a set of int(density rows columns), a vector; drawn anew at every refresh. What is left of G is zero in them.

    An entry's number takes 4 bytes, 8 in matrices of 2^31 entries or more.

    Args:
        density: share of the entries, in [0, 1]; 0 for none.
    """

    title: ClassVar[str] = "Random entries"
    paper: ClassVar[Paper | None] = PAPER

    density: float = 0.25

    def __post_init__(self) -> None:
        check_density(self.density)

    def turns(self, shape: Shape) -> bool:
        """Entries are those of the matrix as it is."""
        return False

    def layout(self, shape: Shape, place: Place) -> Layout:
        """The entries' numbers in the order of rows, rising."""
        return {"indices": Slot(self.small(shape, place), torch.int32 if shape[0] * shape[1] <= 2**31 else torch.int64)}

    def small(self, shape: Shape, place: Place) -> Shape:
        """(chosen entries,)."""
        return (int(self.density * shape[0] * shape[1]),)

    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        """Draw the set without replacement; ``g`` is not looked at."""
        slot = self.layout((g.shape[0], g.shape[1]), place)["indices"]
        order = torch.randperm(g.numel(), generator=place.draw(g.device), device=g.device)
        state["indices"] = order[: slot.shape[0]].sort().values.to(slot.dtype)

    def down(self, state: State, g: torch.Tensor, place: Place) -> torch.Tensor:
        """The chosen entries."""
        return g.reshape(-1).index_select(0, state["indices"])

    def up(self, state: State, r: torch.Tensor, shape: Shape, place: Place) -> torch.Tensor:
        """Zeros but for the chosen entries."""
        return r.new_zeros(shape[0] * shape[1]).index_copy_(0, state["indices"].long(), r).view(shape)
