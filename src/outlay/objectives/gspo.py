"""GSPO: ratio and clip of whole answers, normalised by their length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from outlay.advantages import Group
from outlay.catalog import Paper
from outlay.denominators import Behaviour, Denominator
from outlay.likelihoods import Sequence
from outlay.objectives.named import Named, kl_anchor
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.stabilisers import Clip


@dataclass(frozen=True)
class Gspo(Named):
    """A_i = (r_i - mean(group)) / std(group); mean over answers of min(s A, clip(s, 1 - low, 1 + high) A), s = (pi(y) / pi_ref(y))^(1 / |y|).

    Args:
        low: how far s may fall, in [0, 1].
        high: how far it may rise, >= 0.
        kl: coefficient of the divergence from the model of the stage's start, in the loss (k3), >= 0; knob ``kl``.
        denominator: what the likelihood is divided by; ``old`` when the sampler computes otherwise than the trainer.
    """

    title: ClassVar[str] = "Group sequence policy optimisation (GSPO)"
    paper: ClassVar[Paper | None] = Paper("2507.18071", "Group Sequence Policy Optimization", 2025)

    low: float = 3e-4
    high: float = 4e-4
    kl: float = 0.0
    denominator: Denominator = field(default_factory=Behaviour)

    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""
        return PolicyGradient(
            advantage=Group(mean="group", std="group"),
            denominator=self.denominator,
            likelihood=Sequence(),
            stabiliser=Clip(self.low, self.high),
            aggregate="sequence_mean",
            anchors=kl_anchor(self.kl),
        )
