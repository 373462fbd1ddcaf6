"""Lion as an optimizer: one moment, and steps of the learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.formats.base import Format
from outlay.inner_rules import lion
from outlay.optim.subspace import Composed, Subspace
from outlay.optim.whole import Whole


@dataclass(frozen=True)
class Lion(Composed):
    """w <- w - lr (sign(beta1 m + (1 - beta1) g) + weight_decay w), m <- beta2 m + (1 - beta2) g. Its learning rate is 3 to 10 times below AdamW's.

    Args:
        beta1: weight of the mean in the direction, in [0, 1).
        beta2: decay of the mean, in [0, 1).
        states: how the mean is kept, such as ``dynamic8``; None for the parameter's type.
    """

    title: ClassVar[str] = "Lion"
    paper: ClassVar[Paper | None] = Paper("2302.06675", "Symbolic Discovery of Optimization Algorithms", 2023)
    knobs: ClassVar[dict[str, float]] = {"lr": 1e-4, "weight_decay": 0.0}

    beta1: float = 0.9
    beta2: float = 0.99
    states: Format | None = None

    def __post_init__(self) -> None:
        self.composed()

    def composed(self) -> Subspace:
        """Lion's rule on every parameter."""
        return Whole(lion.Lion(self.beta1, self.beta2, self.states)).composed()
