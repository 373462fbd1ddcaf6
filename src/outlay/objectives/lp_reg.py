"""Lp-Reg: GRPO whose rare tokens are protected from being punished out of existence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from outlay.advantages import Group
from outlay.anchors import LowProbability
from outlay.catalog import Paper
from outlay.denominators import Behaviour, Denominator
from outlay.objectives.named import Named, kl_anchor
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.stabilisers import Clip


@dataclass(frozen=True)
class LpReg(Named):
    """A_i = (r_i - mean(group)) / std(group); token mean of min(r A, clip(r, 1 - low, 1 + high) A) less coefficient * KL(proxy || pi)
    on rare tokens that are punished and no noise; see ``LowProbability``. The wide clip is that of the authors' scripts, which hardly ever cuts.

    Args:
        coefficient: of the protection, >= 0; knob ``low_probability``.
        share: share of sampled tokens that count as rare, in [0, 1].
        filter: whether a token is noise relative to the likeliest one or by itself.
        kappa: the threshold, in [0, 1).
        low: how far the ratio may fall, in [0, 1].
        high: how far it may rise, >= 0.
        kl: coefficient of the divergence from the model of the stage's start, in the loss (k3), >= 0; knob ``kl``.
        denominator: what the likelihood is divided by; ``old`` when the sampler computes otherwise than the trainer.
    """

    title: ClassVar[str] = "GRPO with low-probability regularisation (Lp-Reg)"
    paper: ClassVar[Paper | None] = Paper(
        "2510.03222", "Low-probability Tokens Sustain Exploration in Reinforcement Learning with Verifiable Reward", 2025
    )

    coefficient: float = 1.0
    share: float = 0.01
    filter: Literal["min_p", "fixed"] = "min_p"
    kappa: float = 0.02
    low: float = 1.0
    high: float = 9.0
    kl: float = 0.0
    denominator: Denominator = field(default_factory=Behaviour)

    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""
        return PolicyGradient(
            advantage=Group(mean="group", std="group"),
            denominator=self.denominator,
            stabiliser=Clip(self.low, self.high),
            aggregate="token_mean",
            anchors=(LowProbability(self.coefficient, self.share, self.filter, self.kappa), *kl_anchor(self.kl)),
        )
