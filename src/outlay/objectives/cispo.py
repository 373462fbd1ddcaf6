"""CISPO: the importance weight is clipped, not the update, so that no token stops teaching."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from outlay.advantages import Group
from outlay.catalog import Paper
from outlay.denominators import Behaviour, Denominator
from outlay.objectives.named import Named
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.stabilisers import Truncated


@dataclass(frozen=True)
class Cispo(Named):
    """A_i = (r_i - mean(group)) / std(group); the gradient is the token mean of sg(clip(r, floor, cap)) A grad log pi. No divergence term.

    Args:
        cap: largest weight, >= ``floor``; the paper tunes it and does not say what to, 5 is that of 2510.13786.
        floor: smallest weight, >= 0; the paper sets none.
        denominator: what the likelihood is divided by; ``old`` when the sampler computes otherwise than the trainer.
    """

    title: ClassVar[str] = "CISPO"
    paper: ClassVar[Paper | None] = Paper("2506.13585", "MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention", 2025)

    cap: float = 5.0
    floor: float = 0.0
    denominator: Denominator = field(default_factory=Behaviour)

    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""
        return PolicyGradient(
            advantage=Group(mean="group", std="group"),
            denominator=self.denominator,
            stabiliser=Truncated(self.floor, self.cap),
            aggregate="token_mean",
        )
