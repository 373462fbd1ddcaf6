"""AdamW with both moments in 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from outlay.catalog import Paper
from outlay.formats.dynamic8 import Dynamic8
from outlay.inner_rules.adam import Adam
from outlay.inner_rules.moments import Rounding
from outlay.optim.subspace import Composed, Subspace
from outlay.optim.whole import Whole


@dataclass(frozen=True)
class AdamW8bit(Composed):
    """AdamW whose moments are kept as dynamic 8-bit numbers, a scale a block: 2 (1 + 4 / block) bytes an element instead of 8.

    Betas and eps are AdamW's. The second moment is never rounded to zero where it is not, so that no step is divided by eps alone. Rounded to
    nearest, as in the paper, a moment whose share of its block's largest changes by less than about 0.7 % a step stays at that share (second moments
    with beta2 above 0.99 fall no further then); rounded stochastically it is right on average, for two random numbers an element and step. The
    paper's embedding layer with a norm of its own is the model's business.

    Args:
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator, > 0.
        block: elements that share a scale, >= 1.
        rounding: of the moments, to ``nearest`` or ``stochastic``.
    """

    title: ClassVar[str] = "8-bit AdamW"
    paper: ClassVar[Paper | None] = Paper("2110.02861", "8-bit Optimizers via Block-wise Quantization", 2021)
    knobs: ClassVar[dict[str, float]] = {"lr": 1e-3, "weight_decay": 0.0}

    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    block: int = 256
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        self.composed()

    def composed(self) -> Subspace:
        """Adam with dynamic 8-bit moments on every parameter."""
        second = Dynamic8(signed=False, block=self.block, positive=True)
        first = Dynamic8(block=self.block)
        return Whole(Adam(self.beta1, self.beta2, self.eps, states=first, second=second, rounding=self.rounding)).composed()
