"""Lite PPO: PPO's clip without a critic, and two tricks: the batch's deviation and the token mean."""

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
class LitePpo(Named):
    """A_i = (r_i - mean(group)) / (std(batch) + epsilon); token mean of min(r A, clip(r) A). No divergence term, no filter of long answers.

    The deviation is that of all the batch's rewards, unbiased. A group whose answers are nearly all right no longer has advantages of many deviations.

    Args:
        clip: how far the ratio may move from 1 before the gradient is cut, in [0, 1].
        denominator: what the likelihood is divided by; ``old`` when the sampler computes otherwise than the trainer.
    """

    title: ClassVar[str] = "Lite PPO"
    paper: ClassVar[Paper | None] = Paper("2508.08221", "Part I: Tricks or Traps? A Deep Dive into RL for LLM Reasoning", 2025)

    clip: float = 0.2
    denominator: Denominator = field(default_factory=Behaviour)

    def estimator(self) -> PolicyGradient:
        """Return the policy gradient that this method is."""
        return PolicyGradient(
            advantage=Group(mean="group", std="batch"),
            denominator=self.denominator,
            stabiliser=Clip(self.clip, self.clip),
            aggregate="token_mean",
        )
