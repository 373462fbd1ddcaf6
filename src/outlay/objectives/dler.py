"""DLER: group-centred advantages whitened over the batch, for training under a hard token limit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from outlay.advantages import Group, Whitened
from outlay.catalog import Paper
from outlay.denominators import Behaviour, Denominator
from outlay.objectives.named import Named, kl_anchor
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.stabilisers import Clip


@dataclass(frozen=True)
class Dler(Named):
    """A_t = whiten(r_i - mean(group)) over all tokens of the batch; token mean of PPO's clip, wider above and dual; a small divergence term.

    Where the limit makes most answers fail, a group's deviation says more of chance than of the question. The method's reward is 1 for an answer
    that is right within the limit and 0 otherwise, and questions whose answers are all worth the same are to be drawn again; both belong to
    the rollouts.

    Args:
        low: how far the ratio may fall, in [0, 1].
        high: how far it may rise, >= 0.
        dual: bound on the ratio of bad answers, > 1 + high.
        kl: coefficient of the divergence from the model of the stage's start, in the loss (k3), >= 0; knob ``kl``.
        denominator: what the likelihood is divided by; ``old`` when the sampler computes otherwise than the trainer.
    """

    title: ClassVar[str] = "DLER"
    paper: ClassVar[Paper | None] = Paper("2510.15110", "DLER: Doing Length pEnalty Right", 2025)

    low: float = 0.2
    high: float = 0.28
    dual: float = 10.0
    kl: float = 5e-4
    denominator: Denominator = field(default_factory=Behaviour)

    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""
        return PolicyGradient(
            advantage=Whitened(Group(mean="group", std="none")),
            denominator=self.denominator,
            stabiliser=Clip(self.low, self.high, self.dual),
            aggregate="token_mean",
            anchors=kl_anchor(self.kl),
        )
