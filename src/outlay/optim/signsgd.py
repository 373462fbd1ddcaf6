"""signSGD: every element moves by the learning rate, and without momentum nothing is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.formats.base import Format
from outlay.inner_rules.sign import Sign
from outlay.optim.subspace import Composed, Subspace
from outlay.optim.whole import Whole


@dataclass(frozen=True)
class SignSgd(Composed):
    """w <- w - lr sign(g), or, with momentum (Signum), w <- w - lr sign(m), m <- momentum m + (1 - momentum) g.

    Args:
        momentum: decay of the mean gradient, in [0, 1); at 0 nothing is kept but a count of steps.
        states: how the mean is kept, such as ``dynamic8``; None for the parameter's type.
    """

    title: ClassVar[str] = "signSGD"
    paper: ClassVar[Paper | None] = Paper("1802.04434", "signSGD: Compressed Optimisation for Non-Convex Problems", 2018)
    knobs: ClassVar[dict[str, float]] = {"lr": 1e-4, "weight_decay": 0.0}

    momentum: float = 0.0
    states: Format | None = None

    def __post_init__(self) -> None:
        self.composed()

    def composed(self) -> Subspace:
        """The sign on every parameter."""
        return Whole(Sign(self.momentum, self.states)).composed()
