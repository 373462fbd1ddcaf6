"""Blocks: whole matrices in turn, and the state of the others freed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch

from outlay.catalog import Paper
from outlay.layout import Layout, Shape, State
from outlay.projectors.base import Place
from outlay.projectors.columns import PAPER, check_density
from outlay.rng import torch_generator


@dataclass(frozen=True)
class Blocks:
    """R = G for round(density count) of the matrices, the active ones, and nothing of the others, which have no state until their turn.

    The matrices stand in an order and the rounds walk along it, so many at a time, until each has had its turn; then from the start. The last
    round of such a pass reaches back, so that in every round as many are active. Moments are reset in every round. ``count`` is of the matrices
    that are projected. Rounds are counted by each matrix's own steps: matrices that get no gradient in some steps fall out of turn. How the
    published code deals with a last round that is not full is not known.

    Args:
        density: share of the matrices, in [0, 1]; 0 for none.
        order: ``ascending``: that of the parameters; ``descending``: the reverse; ``mirror``: every other pass in reverse; ``random``: one drawn
            order, the same in every pass.
        seed: of the random order. It is not the run's, so that the most that is ever kept is known before a run begins.
    """

    title: ClassVar[str] = "Whole matrices in turn"
    paper: ClassVar[Paper | None] = PAPER

    density: float = 0.25
    order: Literal["random", "ascending", "descending", "mirror"] = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        check_density(self.density)

    def rounds(self, count: int) -> int:
        """The rounds of a pass; of two passes where they go there and back."""
        active = round(count * self.density)
        passes = 2 if self.order == "mirror" else 1
        return passes * -(-count // active) if active else 1

    def active(self, place: Place) -> bool:
        """Return whether a matrix has state in its round."""
        size = round(place.count * self.density)
        if size == 0:
            return False
        number = place.round % self.rounds(place.count)
        start = min(number % -(-place.count // size) * size, place.count - size)
        position = place.index
        if self.order == "random":
            position = shuffled(place.count, self.seed)[place.index]
        elif self.order == "descending" or (self.order == "mirror" and 2 * number >= self.rounds(place.count)):
            position = place.count - 1 - place.index
        return start <= position < start + size

    def turns(self, shape: Shape) -> bool:
        """Matrices stay as they are."""
        return False

    def layout(self, shape: Shape, place: Place) -> Layout:
        """Nothing is kept: whose turn it is follows from the round."""
        return {}

    def small(self, shape: Shape, place: Place) -> Shape:
        """The matrix's shape for an active one, else (0,)."""
        return shape if self.active(place) else (0,)

    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        """Nothing is to be done."""

    def down(self, state: State, g: torch.Tensor, place: Place) -> torch.Tensor:
        """``g`` for an active matrix, else no entry at all."""
        return g if self.active(place) else g.new_zeros(0)

    def up(self, state: State, r: torch.Tensor, shape: Shape, place: Place) -> torch.Tensor:
        """A copy of R for an active matrix, else zeros."""
        return r.clone() if self.active(place) else r.new_zeros(shape)


@lru_cache
def shuffled(count: int, seed: int) -> tuple[int, ...]:
    """Return the places of ``count`` matrices in a random order."""
    return tuple(torch.randperm(count, generator=torch_generator(seed, "projector/blocks")).tolist())
