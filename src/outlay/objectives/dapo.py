"""DAPO: GRPO with room for rare tokens to grow, and every token of the batch weighing the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from outlay.advantages import Group
from outlay.catalog import Paper
from outlay.denominators import Behaviour, Denominator
from outlay.objectives.named import Named
from outlay.objectives.policy_gradient import PolicyGradient
from outlay.stabilisers import Clip


@dataclass(frozen=True)
class Dapo(Named):
    """A_i = (r_i - mean(group)) / std(group); token mean of min(r A, clip(r, 1 - low, 1 + high) A), no divergence term.

    The paper's two other parts are not the loss's business: dynamic sampling, which draws questions until their answers differ, is the rollouts', and
    the soft punishment of overlong answers is a reward.

    Args:
        low: how far the ratio may fall, in [0, 1].
        high: how far it may rise, >= 0.
        denominator: what the likelihood is divided by; ``old`` when the sampler computes otherwise than the trainer.
    """

    title: ClassVar[str] = "DAPO"
    paper: ClassVar[Paper | None] = Paper("2503.14476", "DAPO: An Open-Source LLM Reinforcement Learning System at Scale", 2025)

    low: float = 0.2
    high: float = 0.28
    denominator: Denominator = field(default_factory=Behaviour)

    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""
        return PolicyGradient(
            advantage=Group(mean="group", std="group"),
            denominator=self.denominator,
            stabiliser=Clip(self.low, self.high),
            aggregate="token_mean",
        )
