"""The seam of inner rules: what turns a gradient, whole or projected, into a direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch

from outlay.layout import Layout, Shape, State


@dataclass(frozen=True)
class Direction:
    """What a rule makes of a gradient; the step is lr ``factor`` ``raw``.

    Args:
        raw: in the shape of the gradient, a tensor of its own.
        factor: corrects for the start of the moments, > 0; 1 for rules without it.
    """

    raw: torch.Tensor
    factor: float = 1.0


@runtime_checkable
class InnerRule(Protocol):
    """Turns gradients into directions. ``elementwise``: every element's direction follows from its own gradients alone, so that a rule may work
    on a shard of a tensor."""

    elementwise: ClassVar[bool]

    def layout(self, shape: Shape) -> Layout:
        """Return what is kept for a gradient of this shape."""
        ...

    def direction(self, state: State, g: torch.Tensor, step: int) -> Direction:
        """Take in a gradient and return the direction; ``state`` is written to, ``g`` is not.

        Args:
            state: as laid out, all zero before the first step.
            g: gradient, of any shape.
            step: number of the step since the state was zero, from 1.
        """
        ...


@runtime_checkable
class Rotates(Protocol):
    """A rule whose state can be told in new coordinates."""

    def rotate(self, state: State, turn: torch.Tensor, shape: Shape) -> None:
        """Bring the state of gradients of this shape, (rows, rank), into the coordinates R_new = R_old ``turn``, (rank, rank)."""
        ...


@runtime_checkable
class Clears(Protocol):
    """A rule that keeps gradients, which mean nothing in other coordinates even where its moments are kept."""

    def clear(self, state: State) -> None:
        """Forget them: the subspace is another one. Called at every new choice of it at which the state is not reset."""
        ...
