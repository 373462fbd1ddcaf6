"""One inner rule for every parameter: no projection, and few-bit weights and states where the rule has them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from outlay.catalog import Paper
from outlay.inner_rules.adam import Adam
from outlay.inner_rules.base import InnerRule
from outlay.optim.subspace import Composed, Subspace

#: a part of every name, so that no matrix is projected
EVERY_NAME = ("",)


@dataclass(frozen=True)
class Whole(Composed):
    """w <- w - lr factor raw with (raw, factor) of ``rule``, and decoupled decay w <- w - lr weight_decay w before it. Vectors do not decay.

    Args:
        rule: what turns gradients into directions.
        rounding: how weights in bfloat16 take the step: to ``nearest``, or ``stochastic``, right on average.
    """

    title: ClassVar[str] = "One rule for all parameters"
    paper: ClassVar[Paper | None] = None
    knobs: ClassVar[dict[str, float]] = {"lr": 1e-3, "weight_decay": 0.0}

    rule: InnerRule = field(default_factory=Adam)
    rounding: Literal["nearest", "stochastic"] = "nearest"

    def composed(self) -> Subspace:
        """A subspace optimizer that projects nothing."""
        return Subspace(full=self.rule, names=EVERY_NAME, rounding=self.rounding)
