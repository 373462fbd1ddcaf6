"""Adafactor as an optimizer: second moments from means of rows and columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.inner_rules import adafactor
from outlay.optim.subspace import Composed, Subspace
from outlay.optim.whole import Whole


@dataclass(frozen=True)
class Adafactor(Composed):
    """w <- w - lr U, U = g / sqrt(R C / mean(R)) cut to a root mean square of ``clip``: rows + columns numbers of state a matrix instead of
    2 rows columns. The step size is the knob ``lr``, not relative to the weights.

    Args:
        decay: exponent of the second moment's decay 1 - t^-decay, > 0.
        clip: most root mean square of U before it is cut, > 0.
        eps: added to squares, > 0.
        beta1: decay of a first moment of U, in [0, 1); at 0 none is kept.
    """

    title: ClassVar[str] = "Adafactor"
    paper: ClassVar[Paper | None] = Paper("1804.04235", "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018)
    knobs: ClassVar[dict[str, float]] = {"lr": 1e-3, "weight_decay": 0.0}

    decay: float = 0.8
    clip: float = 1.0
    eps: float = 1e-30
    beta1: float = 0.0

    def __post_init__(self) -> None:
        self.composed()

    def composed(self) -> Subspace:
        """Adafactor's rule on every parameter."""
        return Whole(adafactor.Adafactor(self.decay, self.clip, self.eps, self.beta1)).composed()
