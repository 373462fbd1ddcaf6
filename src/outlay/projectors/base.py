"""The projector seam: which part of a gradient an optimizer keeps state for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch

from outlay.layout import Layout, Shape, State
from outlay.rng import derive


@dataclass(frozen=True)
class Place:
    """Where a projector works.

    Args:
        name: of the parameter.
        index: its number among the projected ones.
        count: how many of those there are.
        round: how many times it has been chosen anew before, >= 0.
        seed: of the run; random projectors draw from the stream (seed, "projector/" name, round).
        tables: what all matrices share and everyone can rebuild, by name; it is counted, and not saved.
    """

    name: str
    index: int = 0
    count: int = 1
    round: int = 0
    seed: int = 0
    tables: dict[str, torch.Tensor] = field(default_factory=dict)

    def draw(self, device: torch.device) -> torch.Generator:
        """Return the generator of this parameter and round."""
        return torch.Generator(device).manual_seed(derive(self.seed, f"projector/{self.name}", self.round))


@runtime_checkable
class Projector(Protocol):
    """Splits a matrix G, (rows, columns), into a part in few coordinates and the rest: ``up(down(G))`` is the part, linear in G, and
    ``down(up(R)) = R`` unless the class says otherwise by ``inverts = False``. It sees every matrix as ``turns`` says: as it is or transposed."""

    def turns(self, shape: Shape) -> bool:
        """Return whether a matrix of this shape is to be transposed before it is handed to the other methods."""
        ...

    def layout(self, shape: Shape, place: Place) -> Layout:
        """Return what is kept to know the subspace of a matrix of this (turned) shape."""
        ...

    def small(self, shape: Shape, place: Place) -> Shape:
        """Return the shape of ``down``'s result."""
        ...

    def refresh(self, state: State, g: torch.Tensor, place: Place) -> None:
        """Choose the subspace anew by the gradient ``g``, (rows, columns), and keep it in ``state``."""
        ...

    def down(self, state: State, g: torch.Tensor, place: Place) -> torch.Tensor:
        """Return the coordinates of ``g`` in the subspace."""
        ...

    def up(self, state: State, r: torch.Tensor, shape: Shape, place: Place) -> torch.Tensor:
        """Return the matrix of this shape with these coordinates."""
        ...


@runtime_checkable
class Turns(Protocol):
    """A projector with orthonormal directions, so that what is kept in old coordinates can be told in new ones."""

    def turn(self, old: State, new: State, place: Place) -> torch.Tensor:
        """Return T, (rank, rank), with R_new = R_old T for what lies in both subspaces."""
        ...


@runtime_checkable
class Cycles(Protocol):
    """A projector whose state differs from round to round."""

    def rounds(self, count: int) -> int:
        """Return after how many rounds the sizes of its state repeat among ``count`` matrices."""
        ...


@runtime_checkable
class Shares(Protocol):
    """A projector with tables that matrices of one shape share."""

    def tables(self, shapes: list[Shape]) -> Layout:
        """Return what ``Place.tables`` holds for matrices of these (turned) shapes."""
        ...


def longer_first(shape: Shape) -> bool:
    """Return whether a matrix must be transposed to have at least as many rows as columns: the shorter side is then the one compressed."""
    return shape[0] < shape[1]


def check_rank(rank: int) -> None:
    """Refuse a rank below 1."""
    if rank < 1:
        raise ValueError(f"rank must be >= 1, found {rank}")
