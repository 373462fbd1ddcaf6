"""AdamW with moments, and weights where they are so, in bfloat16, rounded stochastically."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.formats.bf16 import Bf16
from outlay.inner_rules.adam import Adam
from outlay.inner_rules.moments import Rounding
from outlay.optim.subspace import Composed, Subspace
from outlay.optim.whole import Whole


@dataclass(frozen=True)
class AdamWBf16(Composed):
    """AdamW in bfloat16 without a copy in single precision: 4 bytes of state an element, and with bfloat16 weights 6 in all instead of 14 or 16.

    Rounded to nearest, a weight w stays as it is when its step is below 2^-9 |w|, and a second moment when (1 - beta2) |g^2 / v - 1| < 2^-9;
    stochastic rounding is right on average. Weights of other types take their steps in those.

    Args:
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator, > 0.
        rounding: of moments and of bfloat16 weights, ``stochastic`` or to ``nearest``.
    """

    title: ClassVar[str] = "bfloat16 AdamW"
    paper: ClassVar[Paper | None] = Paper(
        "2505.01043", "Low-Precision Training of Large Language Models: Methods, Challenges, and Opportunities", 2025
    )
    knobs: ClassVar[dict[str, float]] = {"lr": 1e-3, "weight_decay": 0.0}

    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    rounding: Rounding = "stochastic"

    def __post_init__(self) -> None:
        self.composed()

    def composed(self) -> Subspace:
        """Adam with bfloat16 moments on every parameter."""
        return Whole(Adam(self.beta1, self.beta2, self.eps, states=Bf16(), rounding=self.rounding), self.rounding).composed()
