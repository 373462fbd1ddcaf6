"""The seam of residual rules: what becomes of the part of a gradient that the projection leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from outlay.inner_rules.base import Direction
from outlay.layout import Layout, Shape, State


@dataclass(frozen=True)
class Split:
    """A gradient and what was made of its projected part. Matrices stand as the projector turns them, (rows, columns).

    Args:
        gradient: G, what ``prepare`` returned.
        small: R = down(G).
        direction: the inner rule's, in the shape of ``small``.
        lift: ``up``: coordinates -> matrix.
    """

    gradient: torch.Tensor
    small: torch.Tensor
    direction: Direction
    lift: Callable[[torch.Tensor], torch.Tensor]


@runtime_checkable
class Residual(Protocol):
    """Puts the whole update together: W <- W - lr ``update``."""

    def layout(self, shape: Shape) -> Layout:
        """Return what is kept for a matrix of this (turned) shape."""
        ...

    def prepare(self, state: State, g: torch.Tensor) -> torch.Tensor:
        """Return the gradient that is to be projected: ``g`` itself but for rules that carry something over from the step before."""
        ...

    def update(self, state: State, split: Split) -> torch.Tensor:
        """Return the update, (rows, columns), a tensor of its own; the step that inner rule and projection took stands in ``split``."""
        ...
